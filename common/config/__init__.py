"""The configuration file: read once, checked whole, every problem told with its line."""
