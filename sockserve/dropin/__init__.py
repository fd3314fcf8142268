"""What stands behind sockserve.socketserver and sockserve.http.server."""

__all__: list[str] = []
