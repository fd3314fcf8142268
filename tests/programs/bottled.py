"""An application of bottle's, for ``python -m bottle bottled``."""

from bottle import request, route


@route("/hello/<name>")
def hello(name):
    return f"hello {name}"


@route("/post", method="POST")
def post():
    return request.forms.get("name")
