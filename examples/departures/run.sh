#!/bin/sh
# Serves http://127.0.0.1:$PORT/kv55/<stop> from a backend of its own, until it is interrupted.
cd "$(dirname "$0")" || exit 1
twistd --nodaemon --pidfile=web.pid sockserve \
    --listen "tcp:${PORT:-8000}:interface=127.0.0.1" --handler departures:Departures \
    --timeout lifetime=13 --stats-log stats.log &
web=$!
# A second signal would not let them finish, so each gets one.
trap 'kill $web' INT TERM
twistd --nodaemon --pidfile=backend.pid sockserve \
    --listen unix:backend.sock --handler backend:Backend &
backend=$!
wait $web || wait $web # a signal ends the first
kill $backend 2>/dev/null
wait
