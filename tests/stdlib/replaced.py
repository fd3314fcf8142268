"""
``python -m tests.stdlib.replaced MODULE [SKIPPED ...]``: the interpreter's own tests with our
modules in the place of its own.
"""

import http
import http.server
import socketserver
import sys
import unittest


def put_in_place():
    """What is imported from now on gets ours under the names of the standard library's."""
    import sockserve.http.server
    import sockserve.socketserver

    standard = socketserver, http.server
    ours = sockserve.socketserver, sockserve.http.server
    for old, new in zip(standard, ours, strict=True):
        sys.modules[old.__name__] = new
    http.server = sockserve.http.server
    # These have been imported with what was there before.
    for name in ("wsgiref.simple_server", "xmlrpc.server"):
        sys.modules.pop(name, None)


def without(suite, skipped):
    """A suite without those tests, and which of them it had."""
    kept, had = unittest.TestSuite(), set()
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            inner, found = without(each, skipped)
            kept.addTest(inner)
            had |= found
        elif any(each.id().endswith(f".{name}") for name in skipped):
            had |= {name for name in skipped if each.id().endswith(f".{name}")}
        else:
            kept.addTest(each)
    return kept, had


def main(module, *skipped):
    from test import support

    support.use_resources = {"network": None}  # loopback is meant
    put_in_place()
    suite, had = without(unittest.defaultTestLoader.loadTestsFromName(module), skipped)
    if unknown := set(skipped) - had:
        sys.exit(f"no such test: {', '.join(sorted(unknown))}")
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(not result.wasSuccessful() or not result.testsRun)


if __name__ == "__main__":
    main(*sys.argv[1:])
