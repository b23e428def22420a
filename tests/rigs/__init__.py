"""Real processes and real sockets for the integration tests and the benchmarks, on loopback only."""
