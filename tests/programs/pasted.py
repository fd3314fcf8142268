"""An application on Paste's server, which has a pool of threads of its own."""

from paste import httpserver


def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    answer = b"%s %s %d\n" % (
        environ["REQUEST_METHOD"].encode(),
        environ["PATH_INFO"].encode(),
        len(body),
    )
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


httpserver.serve(app, host="127.0.0.1", port="0", protocol_version="HTTP/1.1")
