"""The mail server of C{examples/submission}, as mail programs see it."""

import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scramp import ScramClient

from tests.examples.running import PATIENCE_SECONDS, Example
from tests.tools import need_tool

MESSAGE = "Subject: greetings\r\n\r\nhello\r\n.\r\n"


@pytest.fixture
def submission(tmp_path: Path) -> Iterator[Example]:
    need_tool("openssl")
    example = Example("howto/authenticate-clients.md", tmp_path)
    try:
        example.wait_for(": serving ")
        yield example
    finally:
        example.end()


def mail_program(example: Example) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", example.port, timeout=PATIENCE_SECONDS)


def trusting(example: Example) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=example.folder / "server.pem")


def test_a_user_sends_mail_by_smtplib(submission: Example) -> None:
    with mail_program(submission) as smtp:
        smtp.starttls(context=trusting(submission))
        smtp.login("alice", "wonderland")
        assert smtp.sendmail("alice@example.org", ["bob@example.org"], MESSAGE) == {}
    kept = (submission.folder / "message-1").read_bytes()
    assert kept == b"X-Submitted-By: alice\r\nSubject: greetings\r\n\r\nhello\r\n.\r\n"
    submission.end()
    assert "wonderland" not in submission.said


def test_mail_of_an_earlier_run_is_kept(submission: Example) -> None:
    earlier = submission.folder / "message-1"
    earlier.write_text("precious")
    with mail_program(submission) as smtp:
        smtp.starttls(context=trusting(submission))
        smtp.login("alice", "wonderland")
        smtp.sendmail("alice@example.org", ["bob@example.org"], MESSAGE)
    assert earlier.read_text() == "precious"
    assert "greetings" in (submission.folder / "message-2").read_text()


def test_a_wrong_password_by_smtplib(submission: Example) -> None:
    with mail_program(submission) as smtp:
        smtp.starttls(context=trusting(submission))
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            smtp.login("alice", "looking-glass")
        assert caught.value.smtp_code == 535
        code, _ = smtp.docmd("MAIL", "FROM:<alice@example.org>")
        assert code == 530
    submission.wait_for("authentication failed: wrong credentials")
    assert "looking-glass" not in submission.said


def test_a_password_is_proved_and_not_shown(submission: Example) -> None:
    with mail_program(submission) as smtp:
        smtp.starttls(context=trusting(submission))
        smtp.ehlo()
        offered = smtp.esmtp_features["auth"].split()
        assert offered == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"]
        client = ScramClient(
            offered[:2],
            "bob",
            "builder",
            channel_binding=("tls-server-end-point", smtp.sock),
        )
        assert client.mechanism_name == "SCRAM-SHA-256-PLUS"

        def respond(challenge: bytes | None = None) -> str:
            if challenge is None:
                return str(client.get_client_first())
            message = challenge.decode()
            if message.startswith("v="):
                client.set_server_final(message)
                return ""
            client.set_server_first(message)
            return str(client.get_client_final())

        code, answer = smtp.auth(client.mechanism_name, respond)
        assert (code, answer) == (235, b"2.7.0 welcome, bob")


def test_no_password_is_asked_for_in_the_plain(submission: Example) -> None:
    with mail_program(submission) as smtp:
        smtp.ehlo()
        assert smtp.esmtp_features["auth"].split() == ["SCRAM-SHA-256"]
        with pytest.raises(smtplib.SMTPException):
            smtp.login("alice", "wonderland")


def test_openssl_finds_tls(submission: Example) -> None:
    asked = subprocess.run(
        ["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{submission.port}",
         "-CAfile", "server.pem", "-verify_return_error", "-verify_ip", "127.0.0.1", "-quiet"],
        cwd=submission.folder,
        input=b"EHLO localhost\nQUIT\n",
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    said = asked.stdout.replace(b"\r\n", b"\n")
    assert b"250 AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN\n" in said
    assert b"STARTTLS" not in said
    assert said.endswith(b"221 2.0.0 bye\n")


def swaks(example: Example, password: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [need_tool("swaks"), "--server", f"127.0.0.1:{example.port}", "--tls",
         "--tls-verify", "--tls-ca-path", "server.pem", "--auth", "PLAIN", "--auth-user", "bob",
         "--auth-password", password, "--from", "bob@example.org", "--to", "alice@example.org"],
        cwd=example.folder,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip


def test_swaks_sends_mail(submission: Example) -> None:
    sent = swaks(submission, "builder")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert (submission.folder / "message-1").read_bytes().startswith(b"X-Submitted-By: bob\r\n")


def test_swaks_with_a_wrong_password(submission: Example) -> None:
    sent = swaks(submission, "fixer")
    assert sent.returncode == 28, sent.stdout + sent.stderr  # "auth error"
    assert b"535 5.7.8" in sent.stdout
    assert not (submission.folder / "message-1").exists()


def test_commands_in_one_packet_with_starttls_are_refused(submission: Example) -> None:
    with socket.create_connection(("127.0.0.1", submission.port), PATIENCE_SECONDS) as client:
        client.sendall(b"EHLO localhost\r\nSTARTTLS\r\nMAIL FROM:<eve@example.org>\r\n")
        said = b""
        while part := client.recv(65536):
            said += part
    assert said.endswith(b"554 5.7.0 nothing may come behind STARTTLS\r\n")
    assert said.count(b"\r\n") == 5
