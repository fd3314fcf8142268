"""A project of Django's in one file, with its ``manage.py``."""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path


def hello(request):
    return HttpResponse(f"hello {os.environ.get('RUN_MAIN')}")


urlpatterns = [path("", hello)]

if __name__ == "__main__":
    settings.configure(ALLOWED_HOSTS=["*"], DEBUG=True, ROOT_URLCONF="__main__", SECRET_KEY="x")
    execute_from_command_line(sys.argv)
