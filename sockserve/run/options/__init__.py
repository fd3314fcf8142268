"""
The one table of options, L{sockserve.run.options.words}, which only needs what is in here: no
Twisted, and nothing that checks a value.
"""

__all__: list[str] = []
