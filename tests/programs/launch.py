"""
``python -m tests.programs.launch PROGRAM stdlib|sockserve [ARGUMENT ...]``: runs the
script of that name here, as it is, on the one or the other modules, until it is interrupted.
"""

import runpy
import signal
import socketserver
import sys

from tests.stdlib.replaced import put_in_place


def refuse_the_stdlibs():
    """A test is not to pass because the program has got the stdlib's modules after all."""
    import sockserve.socketserver as ours

    init = socketserver.BaseServer.__init__

    def checked_init(self, *arguments, **words):
        for name in ("BaseServer", "ThreadingMixIn", "ForkingMixIn"):
            if isinstance(self, getattr(socketserver, name)):
                assert isinstance(self, getattr(ours, name)), f"{name} is the stdlib's"
        init(self, *arguments, **words)

    socketserver.BaseServer.__init__ = checked_init


def main(program, modules, *arguments):
    # A shell that starts the tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if modules == "sockserve":
        put_in_place()
        refuse_the_stdlibs()
    sys.argv[1:] = arguments
    runpy.run_module(f"{__package__}.{program}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
