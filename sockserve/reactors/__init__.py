"""Reactors of ours, for any Twisted program: C{twistd --reactor=uvloop}."""

__all__: list[str] = []
