"""Stable storage for messages: SQLite (the default) and memory (tests). docs/spool.rst has the crash states."""
