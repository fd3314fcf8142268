"""
HTTP connections with coroutine handlers: each request is answered on the reactor.

This room owns driving the coroutine, the streams it gets, and what a handler that fails is
answered with.  It must not know how a connection came about.  Everything runs on the
reactor thread.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.lifecycle import serve_next_coroutine
from sockserve.core.logs import Topic, logger
from sockserve.core.tasks import Task
from sockserve.http.channel import MAX_DISCARD_BYTES, ChannelState, HTTPChannel
from sockserve.http.h1.framing import LocalProtocolError, State
from sockserve.http.h1.head import RequestHead
from sockserve.http.requests import BodyReader
from sockserve.http.responses import CoroutineResponse, Response, answer_error, status_for
from sockserve.interfaces import DeadlineExpired, Outcome, Phase
from sockserve.streams.channel import Pending
from sockserve.streams.reader import StreamReader

__all__ = ["CoroutineHTTPChannel"]

_log = logger(Topic.HTTP)

#: Looked up once, as L{sockserve.core.lifecycle} does.
_READING = ChannelState.READING
_ANSWERING = ChannelState.ANSWERING
_CLOSING = ChannelState.CLOSING
_COMPLETE = State.COMPLETE
_OK = Outcome.OK


class CoroutineHTTPChannel(HTTPChannel):
    """One HTTP connection whose handlers are coroutines."""

    @override
    def _answer(self, head: RequestHead) -> None:
        self._state = _ANSWERING
        self._answer_began = self._seconds()
        request = self.request
        request.head = head
        request.response = request.wfile = response = CoroutineResponse(
            head, self._writer, self.factory.outbox
        )
        if self._draining:
            response.close = True
        if self.deadlines.handle is not None:
            self.timer.arm(Phase.HANDLE, self.deadlines.handle)
        coroutine = serve_next_coroutine(self.factory, request, self.protocol.client_address)
        context = copy_context()
        try:
            awaited = context.run(coroutine.send, None)
        except StopIteration as end:
            self._answered(end.value)
        except BaseException as error:
            self._raised(error)
        else:
            self.parts |= Pending.HANDLER
            response.uncork()
            self._task = Task(coroutine, self._task_ended, response, context)
            self._task.attach(awaited)

    def _raised(self, error: BaseException) -> None:
        _log.failure("serving a request raised past its server's handle_error", Failure(error))
        self._answered(RuntimeError("the server's handle_error raised"))

    def _task_ended(self, result: Any, error: BaseException | None) -> None:
        self._task = None
        self.parts &= ~Pending.HANDLER  # before the next request has one
        if error is None:
            self._answered(result)
        else:
            self._raised(error)
        if self._state is _READING:
            self._read()
        self._part_ended(0)

    @override
    def _open_body(self) -> StreamReader:
        """The stream of the body, or of what comes after a switch, made when asked for."""
        requests, response = self._requests, self.request.response
        if requests.state is _COMPLETE and response.started and response.switches:
            response.flush()
            self._body = StreamReader(self.transport, self.deadlines, self.timer)
            self._resume()
            self.protocol.set_receiver(self._feed_switched)
            rest = requests.switch()
            if rest:
                self._body.feed(rest)
            if requests.eof:
                self._body.feed_eof()
        elif self._body is None:
            if requests.state is _COMPLETE:
                self._body = StreamReader(self.transport, self.deadlines, self.timer)
                self._body.feed_eof()
            else:
                self._body = BodyReader(self.transport, self.deadlines, self.timer, self._continue)
                self._resume()
                self._read_on()
        return self._body

    def _continue(self) -> None:
        """The body is waited for: let a client that waits to be asked send it."""
        head, response = self.request.head, self.request.response
        if head.expects_continue:
            head.expects_continue = False
            if not response.started:
                response.send_informational("HTTP/1.1 100 Continue\r\n")

    def _feed_switched(self, data: bytes) -> None:
        self._received += len(data)
        assert self._body is not None
        self._body.feed(data)

    def _answered(self, error: Exception | None) -> None:
        """A coroutine has come to its end."""
        if self.deadlines.handle is not None:
            self.timer.disarm(Phase.HANDLE)
        response = self.request.response
        outcome = _OK if error is None else self.factory.outcome_of(self.request, error)
        if self._state is _CLOSING or self._writer.is_broken():  # by the handler, or the client
            self._account(response, outcome)
            self._shut_down()
            return
        if error is not None and response.begun:
            # A client can tell by the connection's end only, which must not look in order.
            self._account(response, outcome)
            self._writer.flush()
            self.abort()
            self._shut_down()
            return
        if error is not None or not response.started:
            self._answer_failure(response, error)
        if self._requests.state is not _COMPLETE and self._leaves_too_much():
            response.close = True
        if self._writer.is_closed():  # by the handler's own shutdown()
            response.close = True
        try:
            response.finish()
        except LocalProtocolError as broken:
            _log.error("{handler}: {error}", handler=self.factory.handler_name, error=broken)
            outcome = Outcome.ERROR
            self._writer.flush()
            response.close = True
        now = self._account(response, outcome)
        if response.close:
            self._shut_down()
        elif self._body is None and self._requests.state is _COMPLETE and not self._paused:
            self._await_next(now)
        else:
            self._finish_request()

    def _answer_failure(self, response: Response, error: Exception | None) -> None:
        if error is None:
            _log.error(
                "{handler}: it has sent no response to {request!r}",
                handler=self.factory.handler_name,
                request=response.request,
            )
        response.reset()
        status = 500 if error is None else status_for(error)
        if status != 500 or isinstance(error, DeadlineExpired):
            response.close = True
        answer_error(response, status)

    def _leaves_too_much(self) -> bool:
        """Whether the rest of the body is not worth to be read."""
        head, requests = self.request.head, self._requests
        left = requests.remaining
        return (
            head.expects_continue
            or requests.state is State.FAILED
            or (left is not None and left > MAX_DISCARD_BYTES)
        )

    @override
    def abandon(self) -> None:
        self.abort()
        task, self._task = self._task, None
        if task is not None:
            # Unlike a thread, a coroutine can be ended.
            task.abandon()
            self._account(self.request.response, Outcome.ERROR)
            self.protocol.finish()
