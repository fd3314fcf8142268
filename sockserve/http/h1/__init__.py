"""HTTP/1.x without I/O: framing, heads, chunks, and the parser of requests."""

__all__: list[str] = []
