#!/bin/sh
# Serves the program of calculator.x on the port $PORT, over TCP and UDP, until it is interrupted.
cd "$(dirname "$0")" || exit 1
exec twistd --nodaemon --pidfile= sockserve --handler calculator:Calculator \
    --listen "tcp:${PORT:-7900}:interface=127.0.0.1" \
    --listen "udp:${PORT:-7900}:interface=127.0.0.1" "$@"
