"""A shop that takes orders over HTTP, and works them off from a table."""

import sqlite3
from contextlib import closing

from sockserve.http import HTTPRequestHandler
from sockserve.sql import SQLRequestHandler, dead_rows, enqueue

DATABASE = "jobs.db"


class Shop(HTTPRequestHandler):
    """POST /orders takes an order; GET /invoices and GET /failed list what became of them."""

    def do_POST(self):
        try:
            order = self.rfile.read().decode().strip()
        except UnicodeDecodeError:
            self.answer(400, "an order is a text in UTF-8")
            return
        with closing(sqlite3.connect(DATABASE)) as database, database:
            number = enqueue(database, order)
        self.answer(202, f"order {number}")

    def do_GET(self):
        with closing(sqlite3.connect(DATABASE)) as database:
            if self.path == "/failed":
                lines = [f"{row.id} {row.payload}" for row in dead_rows(database)]
            else:
                rows = database.execute("SELECT number, text FROM invoices ORDER BY number")
                lines = [f"{number} {text}" for number, text in rows]
        self.answer(200, "\n".join(lines))

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(f"{text}\n".encode())


class Invoice(SQLRequestHandler):
    """Writes an invoice for an order.  The invoice and the order's end are one transaction."""

    transaction = True

    def handle(self):
        order = self.request
        self.connection.execute(
            "INSERT INTO invoices (number, text) VALUES (?, ?)",
            (order.id, f"for {order.payload}"),
        )
        if order.payload.startswith("unicorn"):
            raise LookupError(f"no {order.payload} in stock")
