"""Documents keep the order of their members on PostgreSQL, too."""

from django.db import migrations

from audit.ordered_json import KeepOrder, OrderedJSONField


class Migration(migrations.Migration):
    dependencies = [("jobs", "0004_bounds")]

    operations = [
        KeepOrder("job", "error", OrderedJSONField(null=True)),
        KeepOrder("job", "input", OrderedJSONField()),
        KeepOrder("job", "places", OrderedJSONField(default=list)),
        KeepOrder("job", "result", OrderedJSONField(null=True)),
    ]
