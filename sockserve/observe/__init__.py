"""Views of a server's work: the access log.  Rooms here watch; they never take part."""

__all__: list[str] = []
