"""Documents keep the order of their members on PostgreSQL, too."""

from django.db import migrations

from audit.ordered_json import KeepOrder, OrderedJSONField


class Migration(migrations.Migration):
    dependencies = [("routes", "0005_imported_from")]

    operations = [
        KeepOrder("route", "handler", OrderedJSONField()),
        KeepOrder("route", "methods", OrderedJSONField(blank=True, default=list)),
        KeepOrder("route", "policies", OrderedJSONField(blank=True, default=list)),
        KeepOrder("route", "timeouts", OrderedJSONField(blank=True, default=dict)),
    ]
