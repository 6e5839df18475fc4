"""Documents keep the order of their members on PostgreSQL, too."""

from django.db import migrations

from audit.ordered_json import KeepOrder, OrderedJSONField


class Migration(migrations.Migration):
    dependencies = [("keys", "0001_initial")]

    operations = [
        KeepOrder("jwtissuer", "algorithms", OrderedJSONField(default=list)),
        KeepOrder("key", "allowed_ips", OrderedJSONField(blank=True, default=list)),
        KeepOrder("key", "allowed_origins", OrderedJSONField(blank=True, default=list)),
        KeepOrder("key", "limits", OrderedJSONField(blank=True, default=list)),
        KeepOrder("key", "metadata", OrderedJSONField(blank=True, default=dict)),
        KeepOrder("key", "scopes", OrderedJSONField(blank=True, default=list)),
    ]
