"""websocket-server: each message goes to all, and back in capitals."""

from websocket_server import WebsocketServer


def received(client, server, message):
    server.send_message(client, message.upper())


server = WebsocketServer(host="127.0.0.1", port=0)
server.set_fn_message_received(received)
server.run_forever()
