"""The servers behind sockserve.socketserver and sockserve.http.server, for unchanged programs."""

__all__: list[str] = []
