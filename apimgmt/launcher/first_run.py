"""Prepares the database before any process serves: migrations, the administrator, the demo and its keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from accounts.actor import acting
from accounts.tokens import issue_ready_token, ready_token
from apimgmt import env
from apimgmt.secret_store import load_or_create, write_private
from apimgmt.sqlite.free_pages import ensure_incremental
from configuration.apply import apply_text
from consumers.models import Consumer
from keys.models import Key
from keys.services import issue_key, revoke_key
from routes.models import Route
from routes.services import update_route

ADMIN = "admin"
DEMO_FILE = Path(__file__).resolve().parent.parent.parent / "demo" / "apimgmt.yaml"
DEMO_UPSTREAM = "127.0.0.1:8090"
"""The upstream's address in the demo's file, which is replaced by the actual one."""
DEMO_KEYS = ("gold", "free", "bench", "field-sensors")
DEMO_SCOPES = ["call:*", "publish:*", "subscribe:*", "jobs:*"]
KEYS_FILE, UPSTREAM_FILE = "demo-keys.json", "demo-upstream"


class NewerTables(RuntimeError):
    """The tables were migrated by a newer version; the text says what to do."""


def migrate(data_dir: Path) -> int:
    """Apply the migrations and return how many; an SQLite file is copied first.

    Raises NewerTables.
    """
    executor = MigrationExecutor(connection)
    _refuse_newer(executor)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        return 0
    if connection.vendor == "sqlite" and executor.loader.applied_migrations:
        copy = data_dir / f"apimgmt-{timezone.now():%Y%m%dT%H%M%S}.sqlite3"
        with connection.cursor() as cursor:
            cursor.execute("VACUUM INTO %s", [str(copy)])
        delete_old_copies(data_dir)
    call_command("migrate", verbosity=0, interactive=False)
    ensure_incremental()
    return len(plan)


def delete_old_copies(data_dir: Path) -> None:
    """Delete the oldest copies of the database, of which an upgrade makes one each."""
    copies = sorted(data_dir.glob("apimgmt-*T*.sqlite3"))
    most = settings.RETENTION.database_copies
    for path in copies[:-most] if most else ():
        path.unlink()


def _refuse_newer(executor: MigrationExecutor) -> None:
    """Raise NewerTables if migrations are applied that this version does not have: it would write unreadable rows."""
    available = executor.loader.disk_migrations
    apps = {app for app, _ in available}
    unknown = sorted(f"{app}.{name}" for app, name in executor.loader.applied_migrations if app in apps)
    newer = [name for name in unknown if tuple(name.split(".", 1)) not in available]
    if newer:
        raise NewerTables(
            f"The tables were migrated by a newer version ({', '.join(newer)}). Run that version, or restore a copy of "
            "the database from before."
        )


@dataclass(frozen=True, slots=True)
class Administrator:
    """The first operator: what opens the account now, of what the first run created."""

    username: str
    password: str | None
    """The generated one. None where the account has another: one was given on the first run, or set since."""
    token: str | None
    """None once it is revoked or replaced."""
    is_new: bool
    """Whether this run created the account: a generated password is printed then, and never again."""


def administrator(data_dir: Path) -> Administrator:
    """Return the administrator, who is created with a password and a token where there is no operator yet.

    The password is a generated one, or that of ``DJANGO_SUPERUSER_PASSWORD``, which is printed and stored nowhere.
    Nothing that an operator has deleted, revoked or changed since is restored. Raises ValidationError for a given
    password or name that is not allowed.
    """
    password = load_or_create(data_dir)["admin_password"]
    with transaction.atomic(), acting("up"):
        is_new = not User.objects.exists()
        if is_new:
            username = env.text("DJANGO_SUPERUSER_USERNAME", ADMIN)
            issue_ready_token(_create_superuser(username, env.text("DJANGO_SUPERUSER_PASSWORD"), password), by="up")
        first = ready_token(by="up")
    user, token = first or (User.objects.filter(username=ADMIN).first(), None)
    is_password = user is not None and user.check_password(password)
    return Administrator(user.username if user else ADMIN, password if is_password else None, token, is_new=is_new)


def _create_superuser(username: str, given: str, generated: str) -> User:
    """Create the first operator with the password that is given, if one is."""
    email = env.text("DJANGO_SUPERUSER_EMAIL")
    account = User(username=username, email=email)
    account.full_clean(exclude=["password"])
    if given:
        validate_password(given, account)
    return User.objects.create_superuser(username, email, given or generated)


def demo_upstream_port(data_dir: Path) -> int:
    """Return the port of the demo's upstream in the previous run, or the default."""
    marker = data_dir / UPSTREAM_FILE
    return int((marker.read_text() if marker.exists() else DEMO_UPSTREAM).rpartition(":")[2])


def demo(data_dir: Path, upstream: str) -> dict[str, str]:
    """Load the demo on the first run, update its upstream's address if it changed, and return its keys by consumer."""
    marker = data_dir / UPSTREAM_FILE
    if not marker.exists():
        apply_text(DEMO_FILE.read_text().replace(DEMO_UPSTREAM, upstream), DEMO_FILE.name, by="up")
    elif marker.read_text() != upstream:
        _move_upstream(marker.read_text(), upstream)
    write_private(marker, upstream)
    return _demo_keys(data_dir / KEYS_FILE)


def revoke_demo(data_dir: Path) -> int:
    """Revoke the demo's keys of earlier runs, whose texts are in a file, and return how many were valid."""
    path = data_dir / KEYS_FILE
    texts: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    usable = Key.objects.usable(timezone.now()).filter(id__in=[text.split("_")[1] for text in texts.values()])
    keys = list(usable)
    for key in keys:
        revoke_key(key, reason="the demo's, and the gateway is public", by="up")
    return len(keys)


def _move_upstream(before: str, now: str) -> None:
    """Point the demo's routes to the upstream's new address; other changes to them are kept."""
    for route in Route.objects.all():
        url = str(route.handler.get("url", ""))
        if f"//{before}/" in url:
            update_route(route, handler=route.handler | {"url": url.replace(f"//{before}/", f"//{now}/")}, by="up")


def _demo_keys(path: Path) -> dict[str, str]:
    """Return a valid key for each consumer of the demo: the previous one, or a new one if it is no longer valid."""
    before: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    usable = set(Key.objects.usable(timezone.now()).values_list("id", flat=True))
    keys: dict[str, str] = {}
    for consumer in Consumer.objects.filter(name__in=DEMO_KEYS, is_active=True):
        text = before.get(consumer.name, "")
        if not text or text.split("_")[1] not in usable:
            _, text = issue_key(consumer=consumer, name="demo", scopes=DEMO_SCOPES, by="up")
        keys[consumer.name] = text
    if keys != before:
        write_private(path, json.dumps(keys, indent=1))
    return keys
