"""HTTP/1.x without I/O: framing, heads, chunks."""

__all__: list[str] = []
