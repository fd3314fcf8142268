"""
``python -m sockserve -m tests.stdlib.replaced NAME ... [--skip TEST ...]``: the interpreter's own
tests (its modules, classes or single tests) with our modules in the place of its own.
"""

import argparse
import socketserver
import sys
import unittest


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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--skip", nargs="*", default=[])
    given = parser.parse_args()

    from test import support

    from sockserve.dropin.background_reactor import running_reactor

    assert socketserver.BaseServer.shutdown.__module__ == "sockserve.socketserver"
    support.use_resources = {"network": None, "walltime": None}  # loopback is meant
    # Its thread stays until the end, and so before and after each test, which counts them.
    running_reactor()
    suite, had = without(unittest.defaultTestLoader.loadTestsFromNames(given.names), given.skip)
    if unknown := set(given.skip) - had:
        sys.exit(f"no such test: {', '.join(sorted(unknown))}")
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.stdout.write(f"really ran: {result.testsRun - len(result.skipped)}\n")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
