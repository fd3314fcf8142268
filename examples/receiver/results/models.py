from django.db import models


class Result(models.Model):
    job = models.CharField(max_length=100, unique=True)
    data = models.JSONField()
