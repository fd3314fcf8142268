"""The access log outlives the requests it is to tell of."""

import pytest

from sockserve.run.config import server_config
from tests.integration.servers import LOOPBACK, connect, in_thread, is_ended, read_line

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


async def test_a_request_that_ends_while_the_server_stops_is_in_the_log(tmp_path):
    from twisted.internet import reactor

    path = tmp_path / "access.log"
    config = server_config(
        {
            "listen": [LOOPBACK],
            "handler": "tests.integration.handlers:Echo",
            "access-log": str(path),
            "timeout": ["drain=0.5"],
        }
    )
    parent = config.build(reactor)
    (service,) = (child for child in parent if hasattr(child, "server"))
    parent.privilegedStartService()
    parent.startService()
    try:
        with connect(service.server.server_address) as client:
            client.sendall(b"hello\n")
            assert await in_thread(read_line, client) == b"hello\n"
            own = client.getsockname()
            assert path.read_text() == ""
            await parent.stopService()
            assert await in_thread(is_ended, client)
    finally:
        await parent.stopService()
    (line,) = path.read_text().splitlines()
    assert own[0] in line
