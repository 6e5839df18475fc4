"""Documents keep the order of their members on PostgreSQL, too."""

from django.db import migrations

from audit.ordered_json import KeepOrder, OrderedJSONField


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_sign_ins")]

    operations = [
        KeepOrder("change", "after", OrderedJSONField(null=True)),
        KeepOrder("change", "before", OrderedJSONField(null=True)),
    ]
