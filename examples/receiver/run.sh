#!/bin/sh
# Serves POSTs of results on http://127.0.0.1:$PORT/ and stores them, until it is interrupted.
cd "$(dirname "$0")" || exit 1
python manage.py migrate --verbosity 0 || exit 1
exec python manage.py receive --listen "tcp:${PORT:-7890}:interface=127.0.0.1"
