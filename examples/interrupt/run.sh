#!/bin/sh
# Serves terminals on port $PORT, until it is interrupted.
cd "$(dirname "$0")" || exit 1
exec twistd --nodaemon --pidfile= sockserve \
    --listen "tcp:${PORT:-2323}:interface=127.0.0.1" --handler interrupt:Terminal --timeout idle=none
