import json
import os
from pathlib import Path

import django

SECRET_KEY = "of a test"
INSTALLED_APPS = ["sockserve.django", "workers"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
HERE = Path(__file__).parent
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HERE / "project.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        # Tests are to have a file, too: one in memory is each connection's own.
        "TEST": {"NAME": HERE / "test.sqlite3"},
    }
}
if django.VERSION >= (6, 0):
    INSTALLED_APPS.append("sockserve.django.tasks")
    TASKS = {"default": {"BACKEND": "sockserve.django.tasks.SQLBackend"}}
if "SOCKSERVE" in os.environ:
    SOCKSERVE = json.loads(os.environ["SOCKSERVE"])
if "PGHOST" in os.environ:
    DATABASES["default"] = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres"}
    DATABASES["default"] |= {"CONN_MAX_AGE": None, "OPTIONS": {"connect_timeout": 3}}
