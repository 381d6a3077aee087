"""The handoff manager: carries files from the buffer to the endpoint site."""
