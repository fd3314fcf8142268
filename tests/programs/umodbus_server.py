"""uModbus' server, as its documentation has it."""

from collections import defaultdict
from socketserver import TCPServer

from umodbus.server.tcp import RequestHandler, get_server

TCPServer.allow_reuse_address = True
data = defaultdict(int)
app = get_server(TCPServer, ("127.0.0.1", 0), RequestHandler)


@app.route(slave_ids=[1], function_codes=[3], addresses=list(range(10)))
def read(slave_id, function_code, address):
    return data[address]


@app.route(slave_ids=[1], function_codes=[6, 16], addresses=list(range(10)))
def write(slave_id, function_code, address, value):
    data[address] = value


try:
    app.serve_forever()
finally:
    app.shutdown()
    app.server_close()
