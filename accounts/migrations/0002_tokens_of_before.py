"""Take over the tokens of before they expired, whose table no app has any more; from now on they expire too."""

from datetime import timedelta

from django.conf import settings
from django.db import migrations
from django.utils import timezone

TABLE = "authtoken_token"


def take_over(apps, schema_editor):
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        if TABLE not in connection.introspection.table_names(cursor):
            return
        cursor.execute(f"SELECT key, user_id, created FROM {TABLE}")
        rows = cursor.fetchall()
    now = timezone.now()
    tokens = apps.get_model("accounts", "Token")
    tokens.objects.bulk_create(
        tokens(
            digest=key,
            prefix="",
            name="before tokens expired",
            account_id=account,
            created_at=now,
            expires_at=now + timedelta(days=settings.TOKEN_DAYS),
        )
        for key, account, _ in rows
    )
    schema_editor.execute(f"DROP TABLE {TABLE}")


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial"), ("auth", "0012_alter_user_first_name_max_length")]
    operations = [migrations.RunPython(take_over, migrations.RunPython.noop)]
