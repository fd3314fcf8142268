"""A chat server: a thread for each of many connections, and each of these sends to all."""

import socketserver
import threading

people = set()
lock = threading.Lock()


class Chat(socketserver.StreamRequestHandler):
    def handle(self):
        self.name = self.rfile.readline().strip()
        with lock:
            people.add(self)
            self.tell_all(b"%d here\n" % len(people))
        for line in self.rfile:
            with lock:
                self.tell_all(self.name + b": " + line)

    def tell_all(self, line):
        for person in people:
            person.wfile.write(line)

    def finish(self):
        with lock:
            people.discard(self)
        super().finish()


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", 0), Chat)
print(server.server_address[1])
server.serve_forever()
