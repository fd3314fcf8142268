"""Sockets: the real ones that blocking handlers get, lent by the reactor or pumped."""

__all__: list[str] = []
