"""How a blocking handler gets a real socket: lent by the reactor, or pumped."""

__all__: list[str] = []
