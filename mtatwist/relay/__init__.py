"""The relay manager: from the spool to the next hops."""
