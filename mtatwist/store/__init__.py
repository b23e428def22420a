"""The one database writer behind the spool and other small tables."""
