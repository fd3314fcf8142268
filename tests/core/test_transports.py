"""Transports: all that is asked of one is there in Twisted's."""

import pytest
from twisted.internet import tcp, unix
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface.verify import verifyClass

from sockserve.core.transports import IStreamTransport


@pytest.mark.parametrize("kind", [tcp.Server, unix.Server])
def test_a_transport_of_twisteds_has_all_that_is_asked_of_one(kind: type) -> None:
    assert verifyClass(IStreamTransport, kind, tentative=True)
    assert kind.disconnecting == 0
    assert kind.bufferSize > 0


@pytest.mark.parametrize("kind", [HAProxyProtocolWrapper, TLSMemoryBIOProtocol])
def test_a_wrapper_has_it_from_what_it_wraps(kind: type[ProtocolWrapper]) -> None:
    wrapper = kind(HAProxyWrappingFactory(Factory()), Protocol())
    wrapper.transport = tcp.Server.__new__(tcp.Server)
    wrapper.transport.socket = None
    assert [name for name in IStreamTransport if not hasattr(wrapper, name)] == []
