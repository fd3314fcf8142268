"""A terminal server, whose commands are interrupted as Telnet does it: by a Synch (RFC 854)."""

from twisted.internet import reactor
from twisted.internet.task import deferLater

from sockserve import StreamRequestHandler

#: Telnet's bytes: the data mark, "interrupt process", four requests with an option each, and what
#: begins them all.
DM, IP, WILL, WONT, DO, DONT, IAC = 242, 244, 251, 252, 253, 254, 255


class Interrupted(Exception):
    """The client has interrupted the command."""


class Terminal(StreamRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.is_busy = False
        self.marked = b""

    async def handle(self) -> None:
        self.wfile.write(b"count, or quit\r\n")
        while line := await self.rfile.readline():
            typed, self.marked = without_commands(self.marked + line), b""
            match typed.split():
                case [b"count"]:
                    await self.run_command()
                case [b"quit"]:
                    break
                case [command, *_]:
                    self.wfile.write(b"there is no " + command + b"\r\n")

    async def run_command(self) -> None:
        self.is_busy = True
        try:
            for number in range(1, 1_000_000):
                self.wfile.write(b"%d\r\n" % number)
                await deferLater(reactor, 0.1)
        except Interrupted:
            # The client throws away what it has not shown, up to this mark.
            self.wfile.write(bytes([IAC]))
            self.wfile.write_urgent(bytes([DM]))
            self.wfile.write(b"interrupted\r\n")
        finally:
            self.is_busy = False

    def urgent_received(self, data: bytes) -> None:
        self.rfile.skip_to_mark()  # what was typed ahead, and the IAC IP, IAC of the Synch itself
        # A Telnet program may mark the IAC in place of the DM, which is still to come then.
        self.marked = data if data == bytes([IAC]) else b""
        if self.is_busy:
            self.is_busy = False
            raise Interrupted


def without_commands(line: bytes) -> bytes:
    """What was typed, without what Telnet programs say to each other."""
    typed = bytearray()
    rest = iter(line)
    for byte in rest:
        if byte != IAC:
            typed.append(byte)
        elif next(rest, None) in (WILL, WONT, DO, DONT):
            next(rest, None)
    return bytes(typed)
