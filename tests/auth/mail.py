"""A small protocol with AUTH and STARTTLS, by a handler of either kind."""

from collections.abc import Callable
from typing import Any

from sockserve import StreamRequestHandler
from sockserve.auth import NotAuthenticated, PlaintextPipelined, SASLMixIn, StartTLSMixIn


class _Mail(StartTLSMixIn, SASLMixIn, StreamRequestHandler):
    """What both have in common."""

    greeted = False

    def said(self, line: bytes) -> bytes | None:
        """The answer to a command that takes no waiting; None to others."""
        match line.split():
            case [b"EHLO"]:
                self.greeted = True
                return " ".join(["250", *self.mechanisms]).encode() + b"\r\n"
            case [b"WHO"]:
                return f"250 {self.greeted} {self.shown()}\r\n".encode()
            case [b"STARTTLS" | b"AUTH", *_]:
                return None
            case _:
                return b"500 " + line

    def shown(self) -> str:
        identity = self.identity
        return "nobody" if identity is None else f"{identity.name} by {identity.method}"

    def tls_began(self) -> None:
        self.greeted = False


class Mail(_Mail):
    async def handle(self) -> None:
        async for line in self.rfile:
            answer = self.said(line)
            try:
                if answer is not None:
                    self.wfile.write(answer)
                elif line.startswith(b"STARTTLS"):
                    await self.begin_tls(b"220\r\n")
                else:
                    _, mechanism, *initial = line.split()
                    await self.authenticate(mechanism, *initial)
                    self.wfile.write(f"235 {self.shown()}\r\n".encode())
            except NotAuthenticated as failure:
                self.wfile.write(f"535 {failure.refusal.value}\r\n".encode())
            except PlaintextPipelined:
                self.wfile.write(b"554\r\n")


class BlockingMail(_Mail):
    def handle(self) -> None:
        for line in self.rfile:
            answer = self.said(line)
            try:
                if answer is not None:
                    self.wfile.write(answer)
                elif line.startswith(b"STARTTLS"):
                    self.begin_tls(b"220\r\n")
                else:
                    _, mechanism, *initial = line.split()
                    self.authenticate(mechanism, *initial)
                    self.wfile.write(f"235 {self.shown()}\r\n".encode())
            except NotAuthenticated as failure:
                self.wfile.write(f"535 {failure.refusal.value}\r\n".encode())
            except PlaintextPipelined:
                self.wfile.write(b"554\r\n")


def with_attributes(cls: type, **attributes: Any) -> Callable[..., Any]:
    """The class with other class variables."""
    return type(cls.__name__, (cls,), attributes)
