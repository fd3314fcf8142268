"""The backend: departures of a stop as XML, after a while."""

from twisted.internet import reactor
from twisted.internet.task import deferLater

from sockserve.http import HTTPRequestHandler

SECONDS = 0.5


class Backend(HTTPRequestHandler):
    calls = 0

    async def do_GET(self):
        Backend.calls += 1
        await deferLater(reactor, SECONDS)
        stop = self.path.rpartition("/")[2]
        if stop == "0":
            self.send_error(503, "There is no data of this stop just now")
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(f'<departures stop="{stop}" call="{Backend.calls}"/>\n'.encode())
