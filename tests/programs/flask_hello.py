"""For ``python -m flask --app flask_hello run``."""

import os

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return f"hello {os.environ.get('WERKZEUG_RUN_MAIN')}"
