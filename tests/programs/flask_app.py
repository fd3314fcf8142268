"""``flask_app threaded|processes|tls``: Flask on werkzeug's development server."""

import os
import sys

from flask import Flask, request
from werkzeug.serving import make_server

app = Flask("program")


@app.route("/", methods=["GET", "POST"])
def hello():
    return f"hello {request.form.get('name', 'world')}"


@app.route("/upload", methods=["POST"])
def upload():
    return f"{len(request.get_data())} {request.headers.get('Transfer-Encoding')}"


@app.route("/stream")
def stream():
    return (f"{number}\n" for number in range(3))


@app.route("/fail")
def fail():
    raise ValueError("on purpose")


@app.route("/process")
def process():
    return str(os.getpid())


options = {
    "threaded": {"threaded": True},
    "processes": {"processes": 2},
    "tls": {"threaded": True, "ssl_context": "adhoc"},
}
server = make_server("127.0.0.1", 0, app, **options[sys.argv[1]])
server.log_startup()
print(server.port)
server.serve_forever()
