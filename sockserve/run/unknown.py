"""
Unknown words: what is said of an option or a word that there is not.

This room owns the words that other servers have for what is here under another name.  It must not
know what any word does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sockserve.core.messages import nearest
from sockserve.run.options.words import COMMAND_OPTIONS, OWN_OPTIONS

__all__ = ["hint_at_option", "hint_at_word"]

_TLS = "{certfile} PEM with {keyfile} PEM, or {listen} tls:8443:FOLDER"
_CLIENTS_TLS = "; a handler asks for clients' certificates by its client_authority"
_ALONE = "; it is one process; {threads} says how many requests are served at once"
_FOREGROUND = "; the command sockserve stays in the foreground, and twistd has it"

#: Words of gunicorn, uvicorn, hypercorn, granian, waitress, nginx, C{http.server} and others, and
#: what says the same here; C{{word}} stands for a word of ours.  What begins with a semicolon is a
#: sentence.
_OTHERS: Mapping[str, str] = {
    **dict.fromkeys(("bind", "b", "binds", "address", "addr", "interface", "ip"),
                    "{host}, {port} or {listen}"),
    **dict.fromkeys(("hostname", "server-name"), "{host}"),
    **dict.fromkeys(("http-port", "https-port"), "{port}"),
    **dict.fromkeys(("uds", "unix-socket", "socket", "sock", "unix-domain-socket"), "{unix}"),
    **dict.fromkeys(("fd", "file-descriptor"), "{listen} fd:NUMBER"),
    **dict.fromkeys(("directory", "dir", "d", "root", "docroot", "document-root", "folder"),
                    "{path}"),
    **dict.fromkeys(("app", "application", "class", "handler-class", "module", "call"),
                    "{handler}"),
    **dict.fromkeys(("workers", "w", "worker", "processes", "process", "nproc", "instances"),
                    _ALONE),
    **dict.fromkeys(("worker-class", "k", "worker-type"), "{concurrency}"),
    **dict.fromkeys(("num-threads", "max-threads", "worker-threads", "blocking-threads"),
                    "{threads}"),
    **dict.fromkeys(("ssl-certfile", "cert", "tls-cert", "ssl-certificate", "ssl-cert"),
                    "{certfile}"),
    **dict.fromkeys(("ssl-keyfile", "key", "tls-key", "ssl-key", "ssl-certificate-key"),
                    "{keyfile}"),
    **dict.fromkeys(("ssl-keyfile-password", "keyfile-password", "tls-password-file",
                     "ssl-password-file"), "{keyfile-password-file}"),
    **dict.fromkeys(("ssl", "tls", "https", "insecure-bind"), _TLS),
    **dict.fromkeys(("ca-certs", "ssl-ca-certs", "cafile"), _CLIENTS_TLS),
    **dict.fromkeys(("timeout-keep-alive", "keep-alive", "keepalive", "keep-alive-timeout",
                     "keepalive-timeout", "idle-timeout", "channel-timeout"),
                    "{timeout} idle=SECONDS"),
    **dict.fromkeys(("graceful-timeout", "timeout-graceful-shutdown", "shutdown-timeout",
                     "drain-timeout"), "{timeout} drain=SECONDS"),
    **dict.fromkeys(("request-timeout", "handler-timeout", "read-timeout"),
                    "{timeout} handle=SECONDS"),
    **dict.fromkeys(("idle", "handle", "body", "write", "lifetime", "drain",
                     "handshake"), "{timeout} PHASE=SECONDS"),
    **dict.fromkeys(("backlog", "listen-backlog"), "{request-queue-size}"),
    **dict.fromkeys(("limit-concurrency", "worker-connections", "connection-limit",
                     "max-clients"), "{max-connections}"),
    **dict.fromkeys(("limit-request-line",), "{max-request-line-bytes}"),
    **dict.fromkeys(("limit-request-fields",), "{max-header-fields}"),
    **dict.fromkeys(("limit-request-field-size", "limit-request-field_size",
                     "h11-max-incomplete-event-size", "max-request-header-size"),
                    "{max-header-bytes}"),
    **dict.fromkeys(("max-request-body-size", "client-max-body-size", "max-body-size"),
                    "{max-body-bytes}"),
    **dict.fromkeys(("forwarded-allow-ips", "proxy-headers", "trusted-proxy", "proxy-allow-from"),
                    "{proxy-from}"),
    **dict.fromkeys(("proxy-protocol", "proxy"), "{listen} haproxy:tcp:PORT"),
    **dict.fromkeys(("access-logfile", "access-log-file", "accesslog"), "{access-log}"),
    **dict.fromkeys(("access-logformat", "access-log-format", "access-log-fmt"), "{log-format}"),
    **dict.fromkeys(("no-access-log", "disable-access-log"), "{access-log} none"),
    **dict.fromkeys(("log-level", "loglevel", "debug"), "{verbose}"),
    **dict.fromkeys(("quiet", "q"), "{access-log} none"),
    **dict.fromkeys(("configuration", "conf", "cfg", "settings"), "{config}"),
    **dict.fromkeys(("check-config", "dry-run", "test"), "{check}"),
    **dict.fromkeys(("autoreload", "auto-reload", "watch"), "{reload}"),
    **dict.fromkeys(("daemon", "daemonize", "D", "pid", "pidfile", "n", "nodaemon"), _FOREGROUND),
    **dict.fromkeys(("wsgi", "asgi", "factory"), "; there is no such interface, but {handler}"
                    " takes a class of socketserver's kind"),
}  # fmt: skip


def hint_at_option(option: str, known: Collection[str]) -> str:
    """
    A hint at what may have been meant by an option that there is not, to be put behind a message;
    perhaps empty.

    @param option: with its dashes.
    @param known: the long options, with theirs.
    """
    return _hint(option.lstrip("-"), option, known, "--")


def hint_at_word(word: str, known: Collection[str]) -> str:
    """The same, for a word of a file."""
    if word in COMMAND_OPTIONS or word in OWN_OPTIONS:
        return f"; it is about a command, and an option alone: --{word}"
    return _hint(word, word, known, "")


def _hint(plain: str, shown: str, known: Collection[str], dashes: str) -> str:
    other = _OTHERS.get(plain) or _OTHERS.get(plain.replace("_", "-"))
    if other is None:
        return nearest(shown, known)
    ours = {each.removeprefix(dashes): f"{dashes}{each.removeprefix(dashes)}" for each in known}
    try:
        told = other.format_map(ours)
    except KeyError:  # a word that is not one of these
        return ""
    return told if told.startswith(";") else f"; here it is {told}"
