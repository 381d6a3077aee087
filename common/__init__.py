"""What both buffer managers are built from."""

__version__ = "0.1.0"
