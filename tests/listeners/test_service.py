"""A listener as a service: when its listener is told what, and when it has stopped."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel, capturedLogs

from sockserve.listeners.service import ListenerService


class Listener:
    """
    A listener that notes what it is told, and ends when a test says so.

    @ivar told: what it has been told.
    @ivar closed: what C{close} has returned, each time.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.closed: list[Deferred[Any]] = []

    def opened(self, port: Any) -> None:
        self.told.append(("opened", port))

    def suspend(self) -> None:
        self.told.append("suspend")

    def resume(self) -> None:
        self.told.append("resume")

    def close(self) -> Deferred[Any]:
        self.told.append("close")
        self.closed.append(Deferred())
        return self.closed[-1]


class Server:
    """
    A server object whose workers leave when a test says so.

    @ivar released: what C{release} has returned, each time.
    """

    def __init__(self) -> None:
        self.released: list[Deferred[Any]] = []

    def release(self) -> Deferred[Any]:
        self.released.append(Deferred())
        return self.released[-1]


class Service(ListenerService):
    """A service of these."""

    def __init__(self) -> None:
        self.listener = Listener()
        super().__init__(self.listener, "memory")
        self.server: Any = Server()

    def open(self) -> None:
        """What a kind of service does when it starts."""
        self._machine.opened("port")
        self.startService()

    def close_by_itself(self) -> None:
        """What one does whose port has closed."""
        self._machine.port_closed()
        self._watch_draining()

    def is_stopped(self) -> bool:
        return self._machine.is_stopped()


def fired(stopped: Deferred[Any]) -> list[Any]:
    """What a Deferred has fired with; nothing while it waits for another."""
    results: list[Any] = []
    stopped.addCallback(results.append)
    return results


@pytest.fixture
def service() -> Service:
    return Service()


def test_it_has_a_name(service: Service) -> None:
    assert service.description == "memory"
    assert service.is_stopped()


def test_it_has_stopped_when_requests_are_over_and_then_workers_gone(service: Service) -> None:
    service.open()
    stopped = fired(service.stopService())
    assert not service.running
    assert service.listener.told == [("opened", "port"), "close"]
    assert service.server.released == []  # requests may need workers yet
    service.listener.closed[0].callback(None)
    assert service.is_stopped()
    assert stopped == []
    service.server.released[0].callback(None)
    assert len(stopped) == 1


def test_stopping_twice_closes_once_and_both_wait(service: Service) -> None:
    service.open()
    stops = [fired(service.stopService()), fired(service.stopService())]
    assert service.listener.told == [("opened", "port"), "close"]
    assert stops == [[], []]
    service.listener.closed[0].callback(None)
    for released in service.server.released:
        released.callback(None)
    assert list(map(len, stops)) == [1, 1]


def test_what_never_listened_lets_go_of_its_workers(service: Service) -> None:
    """They may have been needed to find out that it cannot."""
    service.server.release = lambda: succeed("released")
    stopped = fired(service.stopService())
    assert len(stopped) == 1
    assert service.listener.told == []


def test_it_may_listen_again_once_it_has_stopped(service: Service) -> None:
    for number in (0, 1):
        service.open()
        assert not service.is_stopped()
        service.stopService()
        assert not service.is_stopped()
        service.listener.closed[number].callback(None)
        assert service.is_stopped()


def test_it_is_suspended_and_resumed_once_each(service: Service) -> None:
    service.suspend()
    service.resume()
    assert service.listener.told == []  # nothing listens
    service.open()
    service.resume()
    service.suspend()
    service.suspend()
    service.resume()
    service.resume()
    assert service.listener.told == [("opened", "port"), "suspend", "resume"]
    service.suspend()
    service.stopService()
    service.resume()
    assert service.listener.told[3:] == ["suspend", "close"]


def test_a_stop_waits_for_what_ends_by_itself(service: Service) -> None:
    service.open()
    service.close_by_itself()
    stopped = fired(service.stopService())
    assert service.listener.told == [("opened", "port"), "close"]
    service.listener.closed[0].callback(None)
    service.server.released[0].callback(None)
    assert len(stopped) == 1


def test_a_close_that_fails_is_logged_and_is_an_end(service: Service) -> None:
    service.open()
    stopped = fired(service.stopService())
    with capturedLogs() as logged:
        service.listener.closed[0].errback(OSError("no more"))
    assert [event["log_failure"].getErrorMessage() for event in logged] == ["no more"]
    assert [event["log_level"] for event in logged] == [LogLevel.critical]
    assert service.is_stopped()
    service.server.released[0].callback(None)
    assert len(stopped) == 1
