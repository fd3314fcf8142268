from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Result",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("job", models.CharField(max_length=100, unique=True)),
                ("data", models.JSONField()),
            ],
        )
    ]
