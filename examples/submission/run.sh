#!/bin/sh
# Takes mail on 127.0.0.1:$PORT from the users in the file of that name, until it is interrupted.
cd "$(dirname "$0")" || exit 1
[ -e server.pem ] || openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out server.pem 2>/dev/null
exec twistd --nodaemon --pidfile= sockserve \
    --listen "tcp:${PORT:-8025}:interface=127.0.0.1" --handler submission:Submission \
    --auth file:users
