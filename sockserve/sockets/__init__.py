"""Real sockets for blocking handlers: lent by the reactor, or pumped."""

__all__: list[str] = []
