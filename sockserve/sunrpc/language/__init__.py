"""The language of RPC: files that declare types (RFC 4506, section 6) and programs (RFC 5531)."""

__all__: list[str] = []
