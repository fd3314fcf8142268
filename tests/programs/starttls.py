"""``starttls CERTIFICATE``: a mail server, as far as curl or openssl need it to say STARTTLS."""

import socketserver
import ssl
import sys

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1])


class Handler(socketserver.StreamRequestHandler):
    timeout = 60

    def setup(self):
        super().setup()
        self.secured = False
        self.message = None

    def finish(self):
        super().finish()
        if self.secured:
            self.request.close()

    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 program ESMTP")
        while line := self.rfile.readline():
            word, _, _rest = line.decode().strip().upper().partition(" ")
            if word == "EHLO":
                self.say("250-program" if not self.secured else "250 program")
                if not self.secured:
                    self.say("250 STARTTLS")
            elif word == "STARTTLS":
                self.say("220 go on")
                self.start_tls()
            elif word == "DATA":
                self.say("354 end with .")
                body = list(iter(self.rfile.readline, b".\r\n"))
                print(f"secured={self.secured} lines={len(body)} bytes={sum(map(len, body))}")
                self.say("250 taken")
            elif word == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")

    def start_tls(self):
        self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()  # the files, anew
        self.secured = True


with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_address[1])
    server.serve_forever()
