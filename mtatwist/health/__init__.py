"""Whether the server lives and is ready, for those who watch it: over HTTP, beside the metrics as text."""
