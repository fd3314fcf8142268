"""The example of xmlrpc.server's documentation."""

from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer


class RequestHandler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/RPC2",)


class MyFuncs:
    def mul(self, x, y):
        return x * y


with SimpleXMLRPCServer(("127.0.0.1", 0), requestHandler=RequestHandler) as server:
    server.register_introspection_functions()
    server.register_multicall_functions()
    server.register_function(pow)

    @server.register_function(name="add")
    def adder_function(x, y):
        return x + y

    server.register_instance(MyFuncs())
    print(server.server_address[1])
    server.serve_forever()
