"""Documents keep the order of their members on PostgreSQL, too."""

from django.db import migrations

from audit.ordered_json import KeepOrder, OrderedJSONField


class Migration(migrations.Migration):
    dependencies = [("events", "0012_channel_subject_prefix")]

    operations = [
        KeepOrder("channel", "parameters", OrderedJSONField(blank=True, default=dict)),
        KeepOrder("channel", "protocols", OrderedJSONField(blank=True, default=list)),
        KeepOrder("channel", "retention", OrderedJSONField(blank=True, default=dict)),
        KeepOrder("channel", "schema", OrderedJSONField(blank=True, null=True)),
        KeepOrder("connector", "options", OrderedJSONField(blank=True, default=dict)),
        KeepOrder("deadletter", "event", OrderedJSONField()),
        KeepOrder("deadletterjob", "refused", OrderedJSONField(default=list)),
        KeepOrder("deadletterjob", "selection", OrderedJSONField(default=dict)),
        KeepOrder("schema", "extra", OrderedJSONField(blank=True, default=dict)),
        KeepOrder("schema", "references", OrderedJSONField(blank=True, default=list)),
        KeepOrder("subject", "latest", OrderedJSONField(blank=True, null=True)),
        KeepOrder("subject", "numbers", OrderedJSONField(blank=True, default=dict)),
        KeepOrder("subscription", "retry_schedule_s", OrderedJSONField()),
    ]
