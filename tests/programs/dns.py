"""dnslib's server, over UDP and TCP on the same port."""

from dnslib import RR
from dnslib.server import BaseResolver, DNSHandler, DNSServer

from tests.programs.waiting import wait_for_interrupt


class Resolver(BaseResolver):
    def resolve(self, request, handler):
        name = request.q.qname
        if name == "absent.test":
            return super().resolve(request, handler)
        reply = request.reply()
        if name == "large.test":
            for number in range(60):
                reply.add_answer(*RR.fromZone(f'{name} 60 TXT "{number:0200}"'))
        else:
            reply.add_answer(*RR.fromZone(f"{name} 60 A 192.0.2.7"))
        return reply


class Handler(DNSHandler):
    udplen = 1232


def both_servers():
    while True:
        udp = DNSServer(Resolver(), address="127.0.0.1", port=0, handler=Handler)
        port = udp.server.server_address[1]
        try:
            return udp, DNSServer(Resolver(), address="127.0.0.1", port=port, tcp=True)
        except OSError:  # somebody has that port for TCP
            udp.server.server_close()


servers = both_servers()
try:
    for server in servers:
        server.start_thread()
    print(servers[0].server.server_address[1])
    wait_for_interrupt()
except KeyboardInterrupt:
    for server in servers:
        server.stop()
        server.thread.join(60)
    print("alive", *(server.isAlive() for server in servers))
