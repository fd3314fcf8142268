"""XDR (RFC 4506): types, and what packs and unpacks values of them, made once for each type."""

__all__: list[str] = []
