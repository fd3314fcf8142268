"""
Programs that are not changed by a line, run with the drop-in modules in the place of the standard
library's.
"""

__all__: list[str] = []
