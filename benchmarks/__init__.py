"""sockserve beside its peers: ``python -m benchmarks`` (Linux, a C compiler, wrk; the peers)."""
