"""Tiny syslog server: a widely copied script, for syslog and for datagrams of any kind."""

import socketserver


class SyslogUDPHandler(socketserver.BaseRequestHandler):
    def handle(self):
        data = bytes.decode(self.request[0].strip())
        _socket = self.request[1]
        print(f"{self.client_address[0]} : {data}")


if __name__ == "__main__":
    try:
        server = socketserver.UDPServer(("127.0.0.1", 0), SyslogUDPHandler)
        print(server.server_address[1])
        server.serve_forever(poll_interval=0.5)
    except (OSError, SystemExit):
        raise
    except KeyboardInterrupt:
        print("Crtl+C Pressed. Shutting down.")
