import json

from django.core.exceptions import ValidationError
from django.db import models


class Result(models.Model):
    job = models.CharField(max_length=100, unique=True)
    data = models.JSONField()

    def clean(self):
        """Refuse what PostgreSQL cannot store as JSON, so that SQLite stores none of it either."""
        try:
            text = json.dumps(self.data, allow_nan=False, ensure_ascii=False)
            text.encode()
        except (ValueError, RecursionError) as error:
            raise ValidationError({"data": str(error)}) from error
        if "\\u0000" in text.replace(r"\\", ""):
            raise ValidationError({"data": "there is a NUL in it"})
