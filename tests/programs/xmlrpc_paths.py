"""Two dispatchers on one server, by path."""

from xmlrpc.server import (
    MultiPathXMLRPCServer,
    SimpleXMLRPCDispatcher,
    SimpleXMLRPCRequestHandler,
)


class RequestHandler(SimpleXMLRPCRequestHandler):
    rpc_paths = ()


server = MultiPathXMLRPCServer(("127.0.0.1", 0), RequestHandler)
for path, result in (("/one", 1), ("/two", 2)):
    dispatcher = server.add_dispatcher(path, SimpleXMLRPCDispatcher())
    dispatcher.register_function(lambda result=result: result, "which")
print(server.server_address[1])
server.serve_forever()
