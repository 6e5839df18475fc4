"""Give each tier that does not limit ``bytes_in`` the default limit, as new tiers have it."""

from typing import Any

from django.apps.registry import Apps
from django.db import migrations

BYTES_IN_DEFAULT = {
    "metric": "bytes_in", "amount": 104_857_600, "per": 10, "burst": 104_857_600, "scope": "consumer", "exceed": "reject",
    "mode": "enforce", "close_at": 20, "fail": "open",
}  # fmt: skip


def _limit_bytes_in(apps: Apps, schema_editor: Any) -> None:
    for tier in apps.get_model("consumers", "Tier").objects.all():
        if all(limit["metric"] != "bytes_in" for limit in tier.limits):
            tier.limits = [*tier.limits, BYTES_IN_DEFAULT]
            tier.save(update_fields=["limits"])


class Migration(migrations.Migration):
    dependencies = [("consumers", "0002_tier_scopes")]

    operations = [migrations.RunPython(_limit_bytes_in, migrations.RunPython.noop)]
