"""Documents keep the order of their members on PostgreSQL, too."""

from django.db import migrations

from audit.ordered_json import KeepOrder, OrderedJSONField
from consumers.scopes import every_scope


class Migration(migrations.Migration):
    dependencies = [("consumers", "0003_tier_bytes_in")]

    operations = [
        KeepOrder("consumer", "limits", OrderedJSONField(blank=True, default=list)),
        KeepOrder("consumer", "metadata", OrderedJSONField(blank=True, default=dict)),
        KeepOrder("tier", "limits", OrderedJSONField(blank=True, default=list)),
        KeepOrder("tier", "scopes", OrderedJSONField(blank=True, default=every_scope)),
    ]
