#!/bin/sh
# Takes orders at http://127.0.0.1:$PORT/orders and works them off, until it is interrupted.
cd "$(dirname "$0")" || exit 1
python -m sockserve.sql create "sqlite:///jobs.db" || exit 1
python -c 'import sqlite3
sqlite3.connect("jobs.db").execute("CREATE TABLE IF NOT EXISTS invoices (number, text)")'
twistd --nodaemon --pidfile=web.pid sockserve \
    --listen "tcp:${PORT:-8000}:interface=127.0.0.1" --handler jobs:Shop &
web=$!
# A second signal would not let them finish, so each gets one.
trap 'kill $web' INT TERM
twistd --nodaemon --pidfile=worker.pid sockserve \
    --source "sqlite:///jobs.db?table=jobs&attempts=3&first=0.1" --handler jobs:Invoice &
worker=$!
wait $web || wait $web # a signal ends the first
kill $worker 2>/dev/null
wait
