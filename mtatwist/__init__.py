"""A mail transfer agent on Twisted: run it with ``twistd mta``."""

__version__ = "0.1.0.dev0"
