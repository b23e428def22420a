"""Building the server from its configuration: a module for each of its parts. Only these and ``tap`` know it whole."""
