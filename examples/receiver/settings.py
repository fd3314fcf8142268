import os
from pathlib import Path

SECRET_KEY = "of an example"
INSTALLED_APPS = ["sockserve.django", "results"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

if "PGHOST" in os.environ:  # libpq's own variables say which
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ.get("PGDATABASE", "postgres"),
            "USER": os.environ.get("PGUSER", "postgres"),
            "CONN_MAX_AGE": 60,
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(__file__).parent / "results.sqlite3",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",  # so that writers wait for one another
                "timeout": 20,
                "init_command": "PRAGMA journal_mode = WAL",
            },
            "CONN_MAX_AGE": 60,
        }
    }

# More threads would only wait for one another in the database.
SOCKSERVE = {"threads": 8, "timeout": {"header": 10}}
