"""Sockets: the real ones that blocking handlers get, lent or pumped, and what the kernel knows."""

__all__: list[str] = []
