"""
What the drop-in modules serve by, in one place: the page of it that L{sockserve.socketserver} and
L{sockserve.http.server} import late, when a program makes its first server.

This room owns which of it they use, and that they pay for Twisted and all the rest only then.  It
must not do anything by itself.
"""

from __future__ import annotations

from sockserve.core.addresses import shown_address
from sockserve.core.incidents import IncidentLog
from sockserve.core.logs import Topic, standard_logger
from sockserve.core.tls import handshake_fault
from sockserve.dropin.accept_loop import AcceptLoop
from sockserve.dropin.background_reactor import private_reactor, running_reactor
from sockserve.dropin.dispatcher import RequestDispatcher
from sockserve.dropin.error_report import print_report
from sockserve.dropin.https_context import https_context
from sockserve.dropin.interpreter_exit import wait_at_exit
from sockserve.dropin.overriding import StandardMethods
from sockserve.dropin.server_check import check_server, own_limits
from sockserve.dropin.serving_thread import ServingThread, may_be_parked, process_here
from sockserve.dropin.tls_accept import accept_tls
from sockserve.dropin.tls_handshake import shake_hands
from sockserve.dropin.verifying import verify_and_take
from sockserve.dropin.witness import witness
from sockserve.http.guarded import make_and_run_guarded
from sockserve.interfaces import DeadlineExpired, HandshakeFailed
from sockserve.listeners.gate import ACCEPT_RETRY_SECONDS, OUT_OF_RESOURCES
from sockserve.sockets.keepalive import keep_alive, send_at_once

__all__ = [
    "ACCEPT_RETRY_SECONDS",
    "OUT_OF_RESOURCES",
    "AcceptLoop",
    "DeadlineExpired",
    "HandshakeFailed",
    "IncidentLog",
    "RequestDispatcher",
    "ServingThread",
    "StandardMethods",
    "Topic",
    "accept_tls",
    "check_server",
    "handshake_fault",
    "https_context",
    "keep_alive",
    "make_and_run_guarded",
    "may_be_parked",
    "own_limits",
    "print_report",
    "private_reactor",
    "process_here",
    "running_reactor",
    "send_at_once",
    "shake_hands",
    "shown_address",
    "standard_logger",
    "verify_and_take",
    "wait_at_exit",
    "witness",
]
