"""What is counted, and (later) its push to a collector."""
