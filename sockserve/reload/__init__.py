"""
Serving anew when a file has changed, with the sockets of before: C{sockserve --reload}.
"""

__all__: list[str] = []
