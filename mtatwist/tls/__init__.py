"""TLS policy: what we present and accept as a server, and what we ask of a next hop."""
