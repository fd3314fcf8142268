"""
Server objects, and what they are made with.

This page shows what its rooms own: the two kinds of server object, whom they admit, where
blocking handlers run, and the records that their observers get.
"""

from sockserve.core.admission import Admission, parse_network
from sockserve.core.in_progress import RequestStatus
from sockserve.core.statistics import HTTPRequestRecord, RequestRecord
from sockserve.dropin.background_reactor import running_reactor
from sockserve.executors import make_executor
from sockserve.interfaces import Outcome
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.stream_factory import StreamFactory

__all__ = [
    "Admission",
    "DatagramServer",
    "HTTPRequestRecord",
    "Outcome",
    "RequestRecord",
    "RequestStatus",
    "StreamFactory",
    "make_executor",
    "parse_network",
    "running_reactor",
]
