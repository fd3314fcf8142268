"""
Modules that an interpreter runs as it starts, where C{PYTHONPATH} begins with this folder.

Nothing here imports sockserve before a program asks for a module that is replaced.
"""

__all__: list[str] = []
