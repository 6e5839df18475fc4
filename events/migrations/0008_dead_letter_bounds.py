"""The size of each dead letter's event, by which the bounds of a channel are kept."""

from django.db import migrations, models
from django.db.models.functions import Cast, Length


def measure(apps, schema_editor):
    letters = apps.get_model("events", "DeadLetter").objects.using(schema_editor.connection.alias)
    letters.update(event_bytes=Length(Cast("event", models.TextField())))


class Migration(migrations.Migration):
    dependencies = [("events", "0007_schemas_are_known_again")]

    operations = [
        migrations.AddField("deadletter", "event_bytes", models.PositiveIntegerField(default=0)),
        migrations.RunPython(measure, migrations.RunPython.noop),
        migrations.AlterField("deadletter", "channel", models.CharField(max_length=200)),
        migrations.AddIndex(
            "deadletter", models.Index(fields=["channel", "id", "event_bytes"], name="dead_letter_bounds")
        ),
    ]
