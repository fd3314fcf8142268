"""
The version of sockserve.

This room owns that text, from which the build and the C{Server} field take it.  It must not know
anything else: no import is needed to read it.
"""

__all__ = ["__version__"]

#: The version of what is installed, as of PEP 440.
__version__ = "0.1.0.dev0"
