"""fakeredis' TCP server."""

from fakeredis import TcpFakeServer

server = TcpFakeServer(("127.0.0.1", 0))
print(server.server_address[1])
try:
    server.serve_forever()
finally:
    server.shutdown()
    server.server_close()
