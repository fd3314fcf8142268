"""Server-sent events and long polling: what is posted is sent to all who listen."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

posted = []
changed = threading.Condition()
listening = 0


def wait_for(number):
    with changed:
        return changed.wait_for(lambda: len(posted) > number, 60) and posted[number]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/events":
            self.send_events()
        elif self.path.startswith("/listening/"):  # how many there are at least
            with changed:
                least = int(self.path.rpartition("/")[2])
                self.answer(changed.wait_for(lambda: listening >= least, 60) and listening)
        else:  # /poll/NUMBER
            self.answer(wait_for(int(self.path.rpartition("/")[2])))

    def do_POST(self):
        event = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with changed:
            posted.append(event)
            changed.notify_all()
        self.answer(len(posted))

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def send_events(self):
        global listening
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(b": welcome\n\n")
        self.wfile.flush()
        with changed:
            number = len(posted)
            listening += 1
            changed.notify_all()
        try:
            while True:
                event = wait_for(number)
                self.wfile.write(f"id: {number}\ndata: {event}\n\n".encode())
                self.wfile.flush()
                number += 1
        except (BrokenPipeError, ConnectionResetError):
            print(f"gone before {number}")
        finally:
            with changed:
                listening -= 1

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port)
server.serve_forever()
