"""Channels that exist keep the subjects of their events; others get a prefix of their own."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("events", "0011_imported_from")]

    operations = [
        migrations.AddField(
            "channel", "subject_prefix", models.CharField(blank=True, default="", editable=False, max_length=60)
        ),
    ]
