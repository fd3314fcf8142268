"""
The handler of ONC RPC: one class for streams and datagrams, coroutine and blocking.

This room owns the way of a call from its bytes to the reply's.  It must not know how a connection
or packet came to it.
"""

from __future__ import annotations

import inspect
import time
from asyncio import IncompleteReadError
from collections.abc import Awaitable
from typing import IO, Any, ClassVar

from twisted.internet.interfaces import IReactorFromThreads
from typing_extensions import override

from sockserve.core.forking import is_child
from sockserve.core.unsuspended import run_unsuspended
from sockserve.handlers import BaseRequestHandler
from sockserve.interfaces import ClientGone, ConfigurationError, DeadlineExpired
from sockserve.sunrpc.declaring import Table, Target, find_table
from sockserve.sunrpc.malformed import MalformedCalls
from sockserve.sunrpc.messages import (
    AcceptStat,
    AuthError,
    AuthStat,
    Call,
    MalformedCall,
    RPCMismatch,
    accepted,
    auth_error,
    parse_call,
    program_mismatch,
    rpc_mismatch,
)
from sockserve.sunrpc.programs import Program
from sockserve.sunrpc.records import MARK_BYTES, Record, RecordTooLong, fragments
from sockserve.sunrpc.reply_cache import Known, ReplyCache, cache_of
from sockserve.sunrpc.xdr.errors import DecodeError, EncodeError

__all__ = ["MAX_DATAGRAM_BYTES", "RPCRequestHandler"]

#: The longest reply that a datagram of IPv4 can hold.
MAX_DATAGRAM_BYTES = 65_507

# Looked up once (see L{sockserve.core.lifecycle}).
_SUCCESS = AcceptStat.SUCCESS
_NEW = Known.NEW


class RPCRequestHandler(BaseRequestHandler[Any, Any]):
    """
    A handler of the calls of one program: all that come on a connection, one after the other, or
    that of a datagram.

    Write its procedures as methods, all C{async def} or none, and set C{program}: its number, with
    methods that L{procedure <sockserve.sunrpc.declaring.procedure>} marks; or a program that
    L{load <sockserve.sunrpc.language.loading.load>} has read.

    @cvar program: the program; a class without one is a base for others.
    @cvar max_record_bytes: the longest call on a stream.
    @cvar malformed: the last calls of clients that were none, or whose arguments or credentials
        were none, or that were too long; of all servers of the class, and of classes derived from
        it that have no C{program} of their own.  What a forked child finds is not among them.
    @ivar call: the call being served, while a procedure runs.
    """

    program: ClassVar[int | Program]
    max_record_bytes: ClassVar[int] = 2**20
    malformed: ClassVar[MalformedCalls]
    call: Call

    #: The exception of a procedure that was called by a datagram.
    _error: Exception | None = None
    #: Set with C{program}.
    table: ClassVar[Table]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not hasattr(cls, "program"):
            return
        cls.table = find_table(cls, cls.program)
        if "program" in vars(cls):
            cls.malformed = MalformedCalls()
        base = RPCRequestHandler
        if cls.handle in (base.handle, base._serve_calls, base._serve_calls_blocking):
            coroutine = cls.table.is_coroutine
            handle: Any = base._serve_calls if coroutine else base._serve_calls_blocking
            setattr(cls, "handle", handle)  # noqa: B010 (it is no method of this class)

    @override
    @classmethod
    def prepare_server(cls, server: Any) -> None:
        """
        Check that there is a program.

        @raise ConfigurationError: there is none.
        """
        super().prepare_server(server)
        if not hasattr(cls, "program"):
            raise ConfigurationError(
                f"handler {cls.__qualname__}: it has no program; set program to its number"
            )

    def verify_request(self, call: Call, client_address: Any) -> bool | Awaitable[bool]:
        """
        Whether a call may be served; by default yes.  It is asked of each call but those of
        procedure 0, before the arguments are looked at.  May be C{async def} when procedures are.

        @param call: with C{credentials}, which an AUTH_SYS client says of itself.
        @return: false for the answer AUTH_TOOWEAK.
        @raise AuthError: for another.
        """
        return True

    @override
    def handle(self) -> Any:
        """Serve the calls; replaced by what fits the procedures."""
        raise NotImplementedError(f"{type(self).__name__} has no program")

    async def _serve_calls(self) -> None:
        """Serve the calls. (reactor thread)"""
        if type(self.request) is tuple:
            data, sender = self.request
            self._send_datagram(sender, await self._answer(data, self._cache()))
            return
        rfile, wfile = self.request.rfile, self.request.wfile
        while True:
            record = Record(self.max_record_bytes)
            while not record.is_whole:
                try:
                    mark = await rfile.readexactly(MARK_BYTES)
                except IncompleteReadError as error:
                    if error.partial or record.has_begun():
                        raise
                    return
                record.add(await rfile.readexactly(self._begin_fragment(record, mark)))
            reply = await self._answer(record.data(), None)
            if reply is not None:
                for piece in fragments(reply):
                    wfile.write(piece)
                await wfile.drain()

    def _serve_calls_blocking(self) -> None:
        """Serve the calls. (worker thread)"""
        if type(self.request) is tuple:
            data, sender = self.request
            self._send_datagram(sender, self._answer_blocking(data, self._cache()))
            return
        if self.request.gettimeout() is None:
            self.request.settimeout(self.server.deadlines.idle)
        with self.request.makefile("rb") as rfile:
            while True:
                record = Record(self.max_record_bytes)
                while not record.is_whole:
                    try:
                        mark = _read_exactly(rfile, MARK_BYTES)
                    except IncompleteReadError as error:
                        if error.partial or record.has_begun():
                            raise
                        return
                    record.add(_read_exactly(rfile, self._begin_fragment(record, mark)))
                reply = self._answer_blocking(record.data(), None)
                if reply is not None:
                    for piece in fragments(reply):
                        self.request.sendall(piece)

    def _begin_fragment(self, record: Record, mark: bytes) -> int:
        """Begin a fragment, and say how many bytes it has. (handler's thread)"""
        try:
            return record.begin_fragment(mark)
        except RecordTooLong as error:
            self.malformed.keep(self.client_address, str(error), record.data() + mark)
            raise

    def _cache(self) -> ReplyCache:
        """The replies that the listener's clients have had."""
        clock = getattr(self.server, "clock", None)  # a server object has none
        return cache_of(self.server, time.monotonic if clock is None else clock.seconds)

    def _send_datagram(self, sender: Any, reply: bytes | None) -> None:
        if reply is not None and self.client_address:
            sender.sendto(reply, self.client_address)
        if self._error is not None:
            raise self._error

    # The way of one call.  Where procedures block, nothing here is awaited.

    async def _answer(self, data: bytes, cache: ReplyCache | None) -> bytes | None:
        """
        The reply to a call; None if there is to be none. (handler's thread)

        @param cache: the replies that clients have had; None where they cannot ask again.
        """
        found = self._find(data)
        if isinstance(found, bytes):
            return found
        call, target = found
        self.call = call
        try:
            verified = self.verify_request(call, self.client_address)
            if verified is not True and inspect.isawaitable(verified):
                verified = await verified
        except AuthError as error:
            return self._refuse(call.data, error.stat)
        except Exception as error:
            return self._failed(call, error)
        if not verified:
            return self._refuse(call.data, AuthStat.TOOWEAK)
        if cache is None or target.is_idempotent:
            return await self._run(call, target)
        key = (
            self.client_address,
            *call[:4],
            hash(call.data[call.start :]),
        )
        known = cache.begin(key)
        if known is not _NEW:
            return known if isinstance(known, bytes) else None
        reply = None
        try:
            reply = await self._run(call, target)
            if len(reply) > MAX_DATAGRAM_BYTES:
                reply = self._too_long(call, len(reply))
        finally:
            if reply is None:
                cache.forget(key)
            else:
                cache.end(key, reply)
        return reply

    def _answer_blocking(self, data: bytes, cache: ReplyCache | None) -> bytes | None:
        """As L{_answer}, where procedures block. (worker thread)"""
        fault = "verify_request waits, but the procedures are not async def"
        return run_unsuspended(self._answer(data, cache), fault)

    def _find(self, data: bytes) -> bytes | tuple[Call, Target]:
        """The call that C{data} is, and what serves it; or the reply that it has at once."""
        try:
            call = parse_call(data)
        except MalformedCall as error:
            self.malformed.keep(self.client_address, str(error), data)
            raise
        except RPCMismatch:
            return rpc_mismatch(data)
        except AuthError as error:
            if error.stat is not AuthStat.REJECTEDCRED:  # a flavor that others may know
                self.malformed.keep(self.client_address, str(error), data)
            return self._refuse(data, error.stat)
        program, targets, _ = self.table
        xid, number, version, procedure = call[:4]
        target = targets.get((version, procedure))
        if number != program.number:
            return accepted(xid, AcceptStat.PROG_UNAVAIL)
        if target is not None:
            return call, target
        if version not in program.versions:
            return program_mismatch(xid, min(program.versions), max(program.versions))
        if procedure != 0:
            return accepted(xid, AcceptStat.PROC_UNAVAIL)
        if call.start != len(data):
            return self._garbage(call, f"{len(data) - call.start} bytes")
        return accepted(xid, _SUCCESS)

    async def _run(self, call: Call, target: Target) -> bytes:
        """The reply to a call that may be served. (handler's thread)"""
        procedure = target.procedure
        try:
            arguments, end = procedure.unpack_arguments(call.data, call.start)
        except DecodeError as error:
            return self._garbage(call, str(error))
        except Exception as error:  # a structure's own code
            return self._failed(call, error)
        if end != len(call.data):
            return self._garbage(call, f"{len(call.data) - end} bytes more than they have")
        try:
            result = getattr(self, target.method)(*arguments)
            if self.table.is_coroutine:
                result = await result
            return accepted(call.xid, _SUCCESS, procedure.pack_result(result))
        except (ClientGone, DeadlineExpired):
            raise
        except AuthError as error:
            return self._refuse(call.data, error.stat)
        except Exception as error:
            return self._failed(call, error)

    # Calls that are not served

    def _refuse(self, data: bytes, stat: AuthStat) -> bytes:
        """The reply to a call whose credentials are not enough."""
        deed = "sent a call without the credentials for it"
        self._count("credentials", deed, f"AUTH_{stat.name}")
        return auth_error(data, stat)

    def _garbage(self, call: Call, what: str) -> bytes:
        """The reply to a call whose arguments are none."""
        detail = f"program {call.program}, procedure {call.procedure}: {what}"
        self.malformed.keep(self.client_address, detail, call.data)
        self._count("arguments", "sent a call with other arguments than its procedure has", detail)
        return accepted(call.xid, AcceptStat.GARBAGE_ARGS)

    def _too_long(self, call: Call, size: int) -> bytes:
        """The reply to a call whose own has no place in a datagram."""
        try:
            raise EncodeError(f"a reply of {size} bytes has no place in a datagram")
        except EncodeError as error:
            return self._failed(call, error)

    def _failed(self, call: Call, error: Exception) -> bytes:
        """The reply to a call whose procedure has just raised C{error}."""
        if type(self.request) is tuple:
            self._error = error  # raised when the reply has been sent
        else:
            self.server.handle_error(self.request, self.client_address)
        return accepted(call.xid, AcceptStat.SYSTEM_ERR)

    def _count(self, reason: str, deed: str, detail: str) -> None:
        """Count a call that is refused, and log that now and then. (handler's thread)"""
        if is_child():  # it cannot count, and may not get the lock of the log
            return
        server = self.server
        server.log_client(self.client_address, deed, detail)
        if not self.table.is_coroutine and IReactorFromThreads.providedBy(server.reactor):
            server.reactor.callFromThread(server.count_refusal, reason)
        else:
            server.count_refusal(reason)


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    """The next C{size} bytes of a file, as C{readexactly} of a stream has it. (worker thread)"""
    data = file.read(size)
    if len(data) < size:
        raise IncompleteReadError(data, size)
    return data
