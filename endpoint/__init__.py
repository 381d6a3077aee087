"""The endpoint manager: verifies, stores and catalogues what arrived."""
