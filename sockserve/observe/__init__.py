"""What is shown of a server's work.  Rooms here watch; they never take part."""

__all__: list[str] = []
