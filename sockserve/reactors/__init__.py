"""Reactors of ours, for any Twisted program: C{twistd --reactor=uvloop}."""
