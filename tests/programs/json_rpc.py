"""jsonrpclib-pelix' server, with threads of its own."""

from jsonrpclib.SimpleJSONRPCServer import PooledJSONRPCServer

server = PooledJSONRPCServer(("127.0.0.1", 0))
server.register_function(pow)
server.register_function(lambda text: text[::-1], "turn")
try:
    server.serve_forever()
finally:
    server.server_close()
