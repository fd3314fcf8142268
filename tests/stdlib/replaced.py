"""
``python -m tests.stdlib.replaced NAME ... [--skip TEST ...]``: the interpreter's own tests (its
modules, classes or single tests) with our modules in the place of its own.
"""

import argparse
import http
import http.server
import socketserver
import sys
import types
import unittest


def put_in_place():
    """What is imported from now on gets ours under the names of the standard library's."""
    import sockserve.http.server
    import sockserve.socketserver

    standard = socketserver, http.server
    ours = sockserve.socketserver, sockserve.http.server
    theirs = {
        value
        for module in standard
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    for old, new in zip(standard, ours, strict=True):
        # A module's tests ask which names are defined there, by the name of the module.
        for value in vars(new).values():
            if isinstance(value, type | types.FunctionType) and value.__module__ == new.__name__:
                value.__module__ = old.__name__
        sys.modules[old.__name__] = new
    http.server = sockserve.http.server
    # These have been imported with what was there before.
    for name, module in list(sys.modules.items()):
        if module in standard + ours or name.startswith("sockserve."):
            continue
        if any(isinstance(value, type) and value in theirs for value in vars(module).values()):
            del sys.modules[name]
            package, _, attribute = name.rpartition(".")
            if package:  # "from package import name" looks there first
                delattr(sys.modules[package], attribute)


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

    support.use_resources = {"network": None, "walltime": None}  # loopback is meant
    put_in_place()
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
