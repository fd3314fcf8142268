"""XDR (RFC 4506): types, and the functions that pack and unpack their values."""

__all__: list[str] = []
