import json
from io import BytesIO

from django.core.exceptions import ValidationError
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.db import transaction
from django.http.multipartparser import MultiPartParser, MultiPartParserError

from results.models import Result
from sockserve.django import SockserveCommand
from sockserve.http import HTTPRequestHandler


class ServerHandler(HTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def do_POST(self):
        form = self.form()
        if "data" not in form:
            self.send_error(404)
            return
        try:
            data = json.loads(form["data"], parse_constant=refuse)
            job = str(data["job"])
        except (ValueError, TypeError, LookupError, RecursionError):
            self.send_error(400, "data is no JSON object with a job")
            return
        try:
            Result(job=job, data=data).full_clean(validate_unique=False)
        except ValidationError as error:
            self.send_error(400, "; ".join(f"{field}: {' '.join(said)}" for field, said in error))
            return
        # Who is told nothing tries again, so the same may come twice, also at once.
        with transaction.atomic():
            Result.objects.get_or_create(job=job, defaults={"data": data})
        self.send_response(200)  # it is committed by now
        self.send_header("Content-type", "text/plain")
        self.end_headers()
        self.wfile.write(b"OK")

    def form(self):
        body = self.rfile.read()
        about = {
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": len(body),
        }
        try:
            fields, _ = MultiPartParser(about, BytesIO(body), [MemoryFileUploadHandler()]).parse()
        except MultiPartParserError:
            return {}
        return fields


def refuse(constant):
    """NaN and the like, which Python reads, and no database takes for JSON."""
    raise ValueError(constant)


class Command(SockserveCommand):
    help = "Receives results from the workers"
    handler_class = ServerHandler
    listen = "tcp:7890:interface=127.0.0.1"
