"""Mail submission: EHLO, STARTTLS, AUTH, and then a message, which is kept in a file."""

import itertools
import re
from pathlib import Path

from sockserve import StreamRequestHandler
from sockserve.auth import (
    NotAuthenticated,
    PlaintextPipelined,
    Refusal,
    SASLMixIn,
    StartTLSMixIn,
)

HERE = Path(__file__).parent
numbers = itertools.count(1)
MOST_BYTES = 10_000_000

#: What a refused login is answered with (RFC 4954).
REFUSALS = {
    Refusal.CREDENTIALS: b"535 5.7.8 wrong name or password\r\n",
    Refusal.MECHANISM: b"504 5.5.4 no such mechanism here\r\n",
    Refusal.MALFORMED: b"501 5.5.2 that is no response\r\n",
    Refusal.CANCELLED: b"501 5.7.0 as you like\r\n",
    Refusal.TOO_MANY: b"454 4.7.0 too many failures; come back later\r\n",
    Refusal.UNAVAILABLE: b"454 4.7.0 come back later\r\n",
}


class Submission(StartTLSMixIn, SASLMixIn, StreamRequestHandler):
    tls_certificate = HERE / "server.pem"
    tls_private_key = HERE / "key.pem"

    name: bytes | None = None  # as EHLO says
    sender: bytes | None = None
    recipients: list[bytes]

    async def handle(self) -> None:
        self.wfile.write(b"220 localhost ESMTP\r\n")
        async for line in self.rfile:
            verb, _, rest = line.rstrip(b"\r\n").partition(b" ")
            match verb.upper():
                case b"EHLO" | b"HELO":
                    self.greet(rest)
                case b"STARTTLS" if self.can_start_tls:
                    if not await self.starttls():
                        return
                case b"AUTH" if self.name and not self.identity:
                    await self.auth(rest)
                case b"MAIL" if self.identity:
                    self.sender, self.recipients = address(rest), []
                    self.reply(b"250 2.1.0 ok" if self.sender is not None else b"501 5.1.7 no")
                case b"RCPT" if self.sender is not None:
                    self.add_recipient(address(rest))
                case b"DATA" if self.sender is not None and self.recipients:
                    await self.take_message()
                case b"MAIL" | b"RCPT" | b"DATA" if not self.identity:
                    self.reply(b"530 5.7.0 authentication required")
                case b"RSET":
                    self.sender = None
                    self.reply(b"250 2.0.0 ok")
                case b"NOOP":
                    self.reply(b"250 2.0.0 ok")
                case b"QUIT":
                    self.reply(b"221 2.0.0 bye")
                    return
                case _:
                    self.reply(b"503 5.5.1 not now")

    def reply(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")

    def greet(self, name: bytes) -> None:
        self.name, self.sender = name, None
        lines = [b"localhost"]
        if self.can_start_tls:
            lines.append(b"STARTTLS")
        if self.mechanisms:
            lines.append(b"AUTH " + " ".join(self.mechanisms).encode())
        for line in lines[:-1]:
            self.reply(b"250-" + line)
        self.reply(b"250 " + lines[-1])

    async def starttls(self) -> bool:
        try:
            await self.begin_tls(b"220 2.0.0 go ahead\r\n")
        except PlaintextPipelined:
            self.reply(b"554 5.7.0 nothing may come behind STARTTLS")
            return False
        return True

    def tls_began(self) -> None:
        self.name = self.sender = None

    async def auth(self, argument: bytes) -> None:
        mechanism, _, initial = argument.partition(b" ")
        try:
            identity = await self.authenticate(mechanism, initial or None)
        except NotAuthenticated as failure:
            self.wfile.write(REFUSALS[failure.refusal])
        else:
            self.reply(b"235 2.7.0 welcome, " + identity.name.encode())

    def add_recipient(self, recipient: bytes | None) -> None:
        if recipient is None or len(self.recipients) >= 100:
            self.reply(b"501 5.1.3 no")
        else:
            self.recipients.append(recipient)
            self.reply(b"250 2.1.5 ok")

    async def take_message(self) -> None:
        self.reply(b"354 go on, and end with a dot")
        assert self.identity is not None
        lines = [b"X-Submitted-By: " + self.identity.name.encode() + b"\r\n"]
        size = 0
        async for line in self.rfile:
            if line == b".\r\n":
                break
            size += len(line)
            if size <= MOST_BYTES:
                lines.append(line.removeprefix(b"."))
        else:  # it has gone in the middle
            return
        if size > MOST_BYTES:
            self.reply(b"552 5.3.4 too long")
            return
        while (kept := HERE / f"message-{next(numbers)}").exists():  # of an earlier run
            pass
        kept.write_bytes(b"".join(lines))
        self.sender = None
        self.reply(b"250 2.0.0 kept")


def address(argument: bytes) -> bytes | None:
    """The address in C{FROM:<alice@example.org>}."""
    found = re.match(rb"(?:FROM|TO): ?<([^<>]*)>", argument, re.IGNORECASE)
    return found and found[1]
