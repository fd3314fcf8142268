"""The gateway: departures of a stop from a slow backend, kept for some seconds."""

from collections.abc import Callable, Coroutine

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.web.client import Agent, ResponseFailed, readBody
from twisted.web.error import Error as BackendError

from sockserve.http import Environment, GatewayRequestHandler, WebHandler


class Cache:
    """Answers by key, for some seconds.  Many who ask for one at once wait for one call."""

    def __init__(self, fetch: Callable[[str], Coroutine], seconds: float) -> None:
        self.fetch = fetch
        self.seconds = seconds
        self.answers: dict[str, bytes] = {}
        self.waiting: dict[str, list[Deferred[bytes]]] = {}

    def ask(self, key: str) -> Deferred[bytes]:
        answer: Deferred[bytes] = Deferred()  # of one client, who may go before it comes
        if key in self.answers:
            answer.callback(self.answers[key])
        elif key in self.waiting:
            self.waiting[key].append(answer)
        else:
            self.waiting[key] = [answer]
            Deferred.fromCoroutine(self.fetch(key)).addBoth(self.answered, key)
        return answer

    def answered(self, result, key: str) -> None:
        if isinstance(result, bytes):
            self.answers[key] = result
            reactor.callLater(self.seconds, self.answers.pop, key)
        for answer in self.waiting.pop(key):
            if not answer.called:
                answer.callback(result)  # a failure is raised there


class BackendEndpoints:
    def endpointForURI(self, uri) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(reactor, "backend.sock")


agent = Agent.usingEndpointFactory(reactor, BackendEndpoints())


async def fetch(stop: str) -> bytes:
    response = await agent.request(b"GET", b"http://backend/" + stop.encode())
    answer = await readBody(response)
    if response.code != 200:  # not to be kept
        raise BackendError(response.code)
    return answer


cache = Cache(fetch, seconds=2)


class Stop:
    def __init__(self, web_handler: WebHandler) -> None:
        self.web = web_handler

    async def do_GET(self, env: Environment) -> None:
        with self.web.phase("WEB_IN"):
            stop = env["path_info"].rpartition("/")[2]
            if not stop.isdecimal():
                self.web.send_not_found()
                return
        try:
            with self.web.phase("GOVI_OUT"):
                answer = cache.ask(stop)
            with self.web.phase("GOVI_IN"):
                xml = await self.web.call_backend(answer)
        except (BackendError, ConnectError, ResponseFailed) as error:
            plain = {"Content-Type": "text/plain"}
            self.web.send_response(f"backend: {error}\n", "502 Bad Gateway", plain)
            return
        with self.web.phase("WEB_OUT"):
            self.web.send_response(xml, headers={"Content-Type": "application/xml"})


class Departures(GatewayRequestHandler):
    urls = {"/kv55": Stop}
    backend_timeout = 10
