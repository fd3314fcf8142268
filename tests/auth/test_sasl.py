"""Logins by SASL, in memory: over plain connections, and such as claim to have TLS."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scramp import ScramClient
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from twisted.python.failure import Failure

from sockserve import ConfigurationError, StreamRequestHandler
from sockserve.auth import SASLMixIn, make_portal
from sockserve.auth.checkers import UserRealm
from sockserve.core.tls_facts import TLSFacts
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.testing import StreamExchange, run_stream
from tests.auth.mail import BlockingMail, Mail, with_attributes

PORTAL = ["memory:alice:wonderland"]
TLS = TLSFacts(None, None)
KINDS = pytest.mark.parametrize("handler", [Mail, BlockingMail])


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All that is logged, with tracebacks."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(eventAsText(event) + repr(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def plain(username: str, password: str, wanted: str = "") -> bytes:
    return b64encode(f"{wanted}\0{username}\0{password}".encode())


def connected(
    handler: Callable[..., Any] = Mail, portal: Portal | None = None, **attributes: Any
) -> StreamExchange:
    attributes = {"tls": TLS, "tls_certificate": None, **attributes}
    return StreamExchange(
        with_attributes(handler, prepare_server=classmethod(_unprepared), **attributes),
        attributes={"portal": portal or make_portal(PORTAL)},
    )


def _unprepared(cls: type, server: object) -> None:
    """There is no certificate in memory."""


def answered(exchange: StreamExchange, data: bytes) -> bytes:
    exchange.receive(data)
    return exchange.take_sent()


# Mechanisms


def test_mechanisms_follow_from_the_connection() -> None:
    offered = b"250 SCRAM-SHA-256 PLAIN\r\n"
    assert answered(connected(), b"EHLO\r\n") == offered
    assert answered(connected(tls=None), b"EHLO\r\n") == b"250 SCRAM-SHA-256\r\n"
    with_certificate = TLSFacts(b"a certificate", None)
    exchange = connected(tls=with_certificate)
    assert answered(exchange, b"EHLO\r\n") == b"250 SCRAM-SHA-256 EXTERNAL PLAIN\r\n"
    exchange = connected(sasl_mechanisms=("PLAIN",))
    assert answered(exchange, b"EHLO\r\n") == b"250 PLAIN\r\n"


def test_mechanisms_follow_from_the_portal() -> None:
    class Passwords:
        credentialInterfaces = (IUsernamePassword,)

    portal = Portal(UserRealm(), [Passwords()])
    assert answered(connected(portal=portal), b"EHLO\r\n") == b"250 PLAIN\r\n"
    assert answered(connected(portal=Portal(UserRealm())), b"EHLO\r\n") == b"250\r\n"


def test_an_unknown_mechanism_of_a_class_is_told_when_the_server_is_made() -> None:
    class Handler(SASLMixIn, StreamRequestHandler):
        sasl_mechanisms = ("PLIAN",)

        async def handle(self) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'PLIAN' is not one of .*did you mean 'PLAIN'"):
        StreamFactory(Handler, reactor=Clock())


def test_mechanisms_that_are_one_text_are_told_when_the_server_is_made() -> None:
    class Handler(SASLMixIn, StreamRequestHandler):
        sasl_mechanisms = "PLAIN"  # type: ignore[assignment]

        async def handle(self) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'PLAIN' is a text; write a tuple of them"):
        StreamFactory(Handler, reactor=Clock())


@pytest.mark.parametrize("mechanism", ["LOGIN", "SCRAM-SHA-256-PLUS", "EXTERNAL", "\xff"])
def test_a_mechanism_that_is_not_offered_is_refused(mechanism: str) -> None:
    exchange = connected()
    command = f"AUTH {mechanism} =\r\n".encode("latin-1")
    assert answered(exchange, command) == b"535 mechanism not offered\r\n"
    assert exchange._factory.statistics.failures == {"authentication": 1}


def test_no_password_is_taken_in_the_plain() -> None:
    exchange = connected(tls=None)
    command = b"AUTH PLAIN " + plain("alice", "wonderland") + b"\r\n"
    assert answered(exchange, command) == b"535 mechanism not offered\r\n"


# PLAIN


def test_plain_with_the_command_and_after_it() -> None:
    exchange = connected()
    command = b"AUTH plain " + plain("alice", "wonderland") + b"\r\n"
    assert answered(exchange, command) == b"235 alice by PLAIN\r\n"
    exchange = connected()
    assert answered(exchange, b"AUTH PLAIN\r\n") == b"334 \r\n"
    response = plain("alice", "wonderland", wanted="alice") + b"\r\n"
    assert answered(exchange, response) == b"235 alice by PLAIN\r\n"
    assert answered(exchange, b"WHO\r\n") == b"250 False alice by PLAIN\r\n"


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (b"*", b"cancelled"),
        (b"$$$", b"malformed response"),
        (b"", b"malformed response"),
        (b64encode(b"alice"), b"malformed response"),
        (b64encode(b"\0alice\0"), b"malformed response"),
        (b64encode(b"\0al\xffce\0wonderland"), b"malformed response"),
        (b64encode(b"\0\0wonderland"), b"malformed response"),
        (b64encode(b"\0alice\0wonder\0land"), b"malformed response"),
        (plain("alice", "wonderland", wanted="bob"), b"malformed response"),
    ],
)
def test_a_response_that_is_none_is_refused(response: bytes, why: bytes) -> None:
    exchange = connected()
    answered(exchange, b"AUTH PLAIN\r\n")
    assert answered(exchange, response + b"\r\n") == b"535 " + why + b"\r\n"
    assert answered(exchange, b"WHO\r\n") == b"250 False nobody\r\n"


def test_a_response_without_end_is_refused() -> None:
    exchange = connected()
    answered(exchange, b"AUTH PLAIN\r\n")
    exchange.receive(b"A" * 12288)
    assert exchange.take_sent() == b"535 malformed response\r\n"


# Failures


def test_a_wrong_password_is_answered_after_a_second_and_then_after_two() -> None:
    """1 s for the first failure; then 2 s for the second, as it comes when it may."""
    exchange = connected()
    command = b"AUTH PLAIN " + plain("alice", "wrong") + b"\r\n"
    assert answered(exchange, command) == b""
    exchange.advance(0.9)
    assert exchange.take_sent() == b""
    exchange.advance(0.2)
    assert exchange.take_sent() == b"535 wrong credentials\r\n"
    exchange.receive(command)
    exchange.advance(1.9)
    assert exchange.take_sent() == b""
    exchange.advance(0.2)
    assert exchange.take_sent() == b"535 wrong credentials\r\n"
    assert exchange._factory.statistics.failures == {"authentication": 2}


def test_a_client_that_comes_again_waits_on_its_next_connection() -> None:
    portal = make_portal(PORTAL)
    first, second = connected(portal=portal), connected(portal=portal)
    first.receive(b"AUTH PLAIN " + plain("alice", "wrong") + b"\r\n")
    first.lose()
    right = b"AUTH PLAIN " + plain("alice", "wonderland") + b"\r\n"
    assert answered(second, right) == b""
    second.advance(1.1)
    assert second.take_sent() == b"235 alice by PLAIN\r\n"


def test_a_client_that_leaves_while_it_waits_is_no_error(log: list[str]) -> None:
    exchange = connected()
    exchange.receive(b"AUTH PLAIN " + plain("alice", "wrong") + b"\r\n")
    exchange.lose()
    assert exchange.done
    assert exchange._factory.statistics.errors == 0
    assert exchange._factory.statistics.failures == {"authentication": 1}


@KINDS
def test_no_credentials_are_logged(handler: type, log: list[str]) -> None:
    portal = make_portal(PORTAL)
    sent = b"AUTH PLAIN " + plain("alice", "s3cret") + b"\r\n"
    if handler is Mail:
        exchange = connected(portal=portal)
        exchange.receive(sent)
        exchange.advance(2)
    else:
        blocking = with_attributes(
            handler, prepare_server=classmethod(_unprepared), tls=TLS, tls_certificate=None
        )
        run_stream(blocking, sent, attributes={"portal": portal})
    said = "".join(log)
    assert "s3cret" not in said
    assert plain("alice", "s3cret").decode() not in said
    assert "authentication failed: wrong credentials" in said


class Broken:
    """A checker that fails, with all that it knows in its words."""

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def requestAvatarId(self, credentials: Any) -> Any:
        raise LookupError(f"no {credentials.username} {credentials.password}")


def test_a_checker_that_fails_is_logged_without_its_words(log: list[str]) -> None:
    exchange = connected(portal=Portal(UserRealm(), [Broken()]))
    command = b"AUTH PLAIN " + plain("alice", "s3cret") + b"\r\n"
    assert answered(exchange, command) == b"535 cannot be checked now\r\n"
    said = "".join(log)
    assert "s3cret" not in said
    assert "raised LookupError at" in said
    assert "requestAvatarId" in said


def test_a_checker_that_takes_its_time_is_waited_for() -> None:
    answer: Deferred[bytes] = Deferred()

    class Slow:
        credentialInterfaces = (IUsernamePassword,)

        def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
            return answer

    exchange = connected(portal=Portal(UserRealm(), [Slow()]))
    exchange.receive(b"AUTH PLAIN " + plain("alice", "wonderland") + b"\r\n")
    assert exchange.take_sent() == b""
    answer.callback(b"alice in wonderland")
    exchange.advance(0)
    assert exchange.take_sent() == b"235 alice in wonderland by PLAIN\r\n"


def test_the_portal_is_logged_out_of_at_the_end() -> None:
    ends: list[bytes] = []

    class Realm(UserRealm):
        def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
            interface, avatar, _ = super().requestAvatar(avatarId, mind, *interfaces)
            return interface, avatar, lambda: ends.append(avatarId)

    exchange = connected(portal=make_portal(PORTAL, Realm()))
    exchange.receive(b"AUTH PLAIN " + plain("alice", "wonderland") + b"\r\n")
    assert ends == []
    exchange.end()
    assert ends == [b"alice"]


# SCRAM


def scram(exchange: StreamExchange, client: ScramClient, advance: float = 0) -> bytes:
    """Go through an exchange; gives the answer to it."""
    first = b64encode(client.get_client_first().encode())
    challenge = answered(exchange, b"AUTH SCRAM-SHA-256 " + first + b"\r\n")
    if not challenge.startswith(b"334 "):
        return challenge
    client.set_server_first(b64decode(challenge[4:]).decode())
    exchange.receive(b64encode(client.get_client_final().encode()) + b"\r\n")
    exchange.advance(advance)
    challenge = exchange.take_sent()
    if not challenge.startswith(b"334 "):
        return challenge
    client.set_server_final(b64decode(challenge[4:]).decode())
    return answered(exchange, b"\r\n")


def test_scram_proves_both_sides() -> None:
    exchange = connected(tls=None)
    client = ScramClient(["SCRAM-SHA-256"], "alice", "wonderland")
    assert scram(exchange, client) == b"235 alice by SCRAM-SHA-256\r\n"


@pytest.mark.parametrize(("username", "password"), [("alice", "wrong"), ("eve", "wonderland")])
def test_scram_with_a_wrong_name_or_password_fails_alike(username: str, password: str) -> None:
    exchange = connected(tls=None)
    client = ScramClient(["SCRAM-SHA-256"], username, password)
    assert scram(exchange, client, 0.9) == b""
    exchange.advance(0.2)
    assert exchange.take_sent() == b"535 wrong credentials\r\n"


@pytest.mark.parametrize("username", ["alice", "eve"])
def test_a_salt_does_not_tell_whether_there_is_such_a_user(username: str) -> None:
    portal = make_portal(PORTAL)
    salts = set()
    for _ in range(2):
        client = ScramClient(["SCRAM-SHA-256"], username, "x")
        first = b64encode(client.get_client_first().encode())
        challenge = answered(connected(portal=portal), b"AUTH SCRAM-SHA-256 " + first + b"\r\n")
        salts.add(b64decode(challenge[4:]).split(b",s=")[1])
    assert len(salts) == 1


@pytest.mark.parametrize("username", ["alice", "eve"])
@pytest.mark.parametrize("final", [b"", b"garbage", b"c=biws,r=x,p=AAAA", b"\xff\xff", b"c=,r=,p="])
def test_a_last_message_that_is_none_is_refused_alike(username: str, final: bytes) -> None:
    exchange = connected()
    client = ScramClient(["SCRAM-SHA-256"], username, "wonderland")
    first = b64encode(client.get_client_first().encode())
    answered(exchange, b"AUTH SCRAM-SHA-256 " + first + b"\r\n")
    answer = answered(exchange, b64encode(final) + b"\r\n")
    assert answer == b"535 malformed response\r\n"


@pytest.mark.parametrize(
    "first",
    [b"", b"n", b"n,,", b"n,,n=,r=x", b"n,,n=alice", b"n,a=bob,n=alice,r=x", b"\xff", b"n,,r=x,n=a",
     b"p=tls-unique,,n=alice,r=x", b"n,,n=a=lice,r=x", b"y" * 9000],
)  # fmt: skip
def test_a_first_message_that_is_none_is_refused(first: bytes) -> None:
    exchange = connected()
    answer = answered(exchange, b"AUTH SCRAM-SHA-256 " + (b64encode(first) or b"=") + b"\r\n")
    assert answer == b"535 malformed response\r\n"


def test_a_login_that_fails_ends_the_one_before() -> None:
    exchange = connected()
    exchange.receive(b"AUTH PLAIN " + plain("alice", "wonderland") + b"\r\n")
    exchange.receive(b"AUTH NONSENSE\r\n")
    exchange.take_sent()
    assert answered(exchange, b"WHO\r\n") == b"250 False nobody\r\n"


def test_failures_of_twisted_are_failures_here() -> None:
    class Refusing:
        credentialInterfaces = (IUsernamePassword,)

        def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
            failed: Deferred[bytes] = Deferred()
            failed.errback(Failure(UnauthorizedLogin("s3cret")))
            return failed

    exchange = connected(portal=Portal(UserRealm(), [Refusing()]))
    exchange.receive(b"AUTH PLAIN " + plain("alice", "wonderland") + b"\r\n")
    exchange.advance(1.1)
    assert exchange.take_sent() == b"535 wrong credentials\r\n"


def test_a_blocking_handler_logs_in_likewise() -> None:
    handler = with_attributes(
        BlockingMail, prepare_server=classmethod(_unprepared), tls=TLS, tls_certificate=None
    )
    data = b"AUTH PLAIN\r\n" + plain("alice", "wonderland") + b"\r\nWHO\r\n"
    exchange = run_stream(handler, data, attributes={"portal": make_portal(PORTAL)})
    assert exchange.sent == b"334 \r\n235 alice by PLAIN\r\n250 False alice by PLAIN\r\n"
