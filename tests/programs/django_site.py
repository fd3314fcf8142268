"""Django's ``runserver --noreload``, with the options given; Django prints where."""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path


def hello(request):
    return HttpResponse(f"hello {request.method} {request.POST.get('name', 'world')}")


def stream(request):
    return StreamingHttpResponse(f"{number}\n" for number in range(3))


def fail(request):
    raise ValueError("on purpose")


urlpatterns = [path("", hello), path("stream", stream), path("fail", fail)]
settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG=True,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=tuple(urlpatterns),
    SECRET_KEY="x",
)
execute_from_command_line(["manage.py", "runserver", "127.0.0.1:0", "--noreload", *sys.argv[1:]])
