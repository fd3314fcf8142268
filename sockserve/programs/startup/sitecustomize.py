"""
The C{sitecustomize} of an interpreter that is to run with the drop-in modules.

This room owns what happens before a program's first line: the folder leaves C{sys.path}, the
finder of the modules comes, and the C{sitecustomize} that would have been there otherwise has its
turn.  Any Python runs it that a program starts, of another version too, or without sockserve: so
it must not know more than what all of them have.
"""

import os
import sys

__all__ = []

if __name__ == "sitecustomize":
    _folder = os.path.dirname(os.path.abspath(__file__))
    _tag = getattr(getattr(sys, "implementation", None), "cache_tag", None)
    _python = "%s %s" % (_tag, sys.prefix)  # noqa: UP031
    if os.environ.get("_SOCKSERVE_PYTHON") == _python:
        from sockserve_finder import install  # type: ignore[import-not-found]

        install(_folder)
    sys.path[:] = [_entry for _entry in sys.path if _entry != _folder]
    sys.path_importer_cache.pop(_folder, None)
    del sys.modules["sitecustomize"]
    # That there is no other is for the module "site" to hear, which then goes on.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
