import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from accounts.models import Token
from accounts.tokens import digest, issue_token, revoke_token
from apimgmt.launcher import first_run
from consumers.models import Consumer
from consumers.services import update_consumer
from keys.models import Key
from keys.services import issue_key, revoke_key
from routes.models import Route
from routes.services import update_route

pytestmark = pytest.mark.django_db
UPSTREAM = "127.0.0.1:9999"


@pytest.fixture(autouse=True)
def _kept_here(tmp_path, settings):
    settings.DATA_DIR = tmp_path


def test_the_demo_is_loaded_once_and_its_keys_are_kept(tmp_path):
    keys = first_run.demo(tmp_path, UPSTREAM)
    assert set(keys) == {"gold", "free", "bench", "field-sensors"}
    assert first_run.demo(tmp_path, UPSTREAM) == keys
    assert Key.objects.count() == 4
    assert (tmp_path / "demo-keys.json").stat().st_mode & 0o777 == 0o600


def test_what_was_deleted_from_the_demo_stays_deleted(tmp_path):
    first_run.demo(tmp_path, UPSTREAM)
    Consumer.objects.get(name="free").delete()
    assert "free" not in first_run.demo(tmp_path, UPSTREAM)
    assert not Consumer.objects.filter(name="free").exists()


def test_a_key_that_was_revoked_is_not_printed_again(tmp_path):
    before = first_run.demo(tmp_path, UPSTREAM)
    revoke_key(Key.objects.get(consumer__name="gold"), reason="leaked", by="olga")
    after = first_run.demo(tmp_path, UPSTREAM)
    assert after["gold"] != before["gold"]
    assert after["free"] == before["free"]
    assert json.loads((tmp_path / "demo-keys.json").read_text()) == after


def test_a_consumer_that_was_disabled_gets_no_key(tmp_path):
    first_run.demo(tmp_path, UPSTREAM)
    update_consumer(Consumer.objects.get(name="gold"), is_active=False, by="olga")
    assert "gold" not in first_run.demo(tmp_path, UPSTREAM)


def test_routes_follow_the_upstream_and_keep_what_was_changed(tmp_path):
    first_run.demo(tmp_path, UPSTREAM)
    assert first_run.demo_upstream_port(tmp_path) == 9999
    update_route(Route.objects.get(name="quotes"), methods=["GET", "POST"], by="olga")
    first_run.demo(tmp_path, "127.0.0.1:7777")
    quotes = Route.objects.get(name="quotes")
    assert quotes.handler["url"] == "http://127.0.0.1:7777/quotes/{rest}"
    assert quotes.methods == ["GET", "POST"]
    assert first_run.demo_upstream_port(tmp_path) == 7777


def test_the_administrator_is_created_once(tmp_path):
    created = first_run.administrator(tmp_path)
    assert created.is_new
    assert first_run.administrator(tmp_path) == replace(created, is_new=False)
    user = authenticate(username=created.username, password=created.password)
    assert user.is_superuser
    assert Token.objects.get(account=user).digest == digest(created.token)


def test_a_password_that_was_changed_stays_changed(tmp_path):
    created = first_run.administrator(tmp_path)
    user = authenticate(username=created.username, password=created.password)
    user.set_password("another-long-passphrase")
    user.save()
    assert first_run.administrator(tmp_path).password is None
    assert authenticate(username="admin", password="another-long-passphrase") is not None
    assert authenticate(username="admin", password=created.password) is None


def test_a_token_that_was_revoked_or_deleted_stays_so(tmp_path):
    created = first_run.administrator(tmp_path)
    revoke_token(Token.objects.get(), by="olga")
    assert first_run.administrator(tmp_path) == replace(created, is_new=False, token=None)
    Token.objects.all().delete()
    assert first_run.administrator(tmp_path) == replace(created, is_new=False, token=None)
    issue_token(User.objects.get(), name="ready.json", by="olga")
    assert first_run.administrator(tmp_path).token is None


def test_a_token_that_has_expired_is_replaced_by_another_one(tmp_path):
    created = first_run.administrator(tmp_path)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=91)):
        renewed = first_run.administrator(tmp_path)
        assert renewed.token not in (None, created.token)
        assert first_run.administrator(tmp_path) == renewed
        usable = Token.objects.usable(timezone.now()).get()
        assert usable.digest == digest(renewed.token)
        revoke_token(usable, by="olga")
        assert first_run.administrator(tmp_path).token is None


def test_an_administrator_who_was_deleted_or_disabled_stays_so(tmp_path):
    first_run.administrator(tmp_path)
    User.objects.update(is_active=False, is_superuser=False)
    first_run.administrator(tmp_path)
    assert User.objects.filter(is_active=False, is_superuser=False).count() == 1
    User.objects.all().delete()
    User.objects.create_superuser("olga", password="a-long-enough-passphrase")
    assert first_run.administrator(tmp_path) == first_run.Administrator("admin", None, None, is_new=False)
    assert User.objects.get().username == "olga"


def test_a_password_that_is_given_is_used_and_neither_printed_nor_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", "olga")
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a-long-enough-passphrase")
    created = first_run.administrator(tmp_path)
    assert (created.username, created.password, created.is_new) == ("olga", None, True)
    assert authenticate(username="olga", password="a-long-enough-passphrase").is_superuser
    assert "a-long-enough-passphrase" not in "".join(path.read_text() for path in tmp_path.iterdir())
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "another-long-passphrase")
    first_run.administrator(tmp_path)
    assert authenticate(username="olga", password="another-long-passphrase") is None


@pytest.mark.parametrize(
    ("name", "value"), [("PASSWORD", "short"), ("PASSWORD", "olga-olga-olga"), ("USERNAME", "a b")]
)
def test_a_superuser_that_is_given_is_validated(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", "olga-olga-olga")
    monkeypatch.setenv(f"DJANGO_SUPERUSER_{name}", value)
    with pytest.raises(ValidationError):
        first_run.administrator(tmp_path)
    assert not User.objects.exists()


def test_the_demos_keys_of_earlier_runs_are_revoked(tmp_path):
    assert first_run.revoke_demo(tmp_path) == 0
    first_run.demo(tmp_path, UPSTREAM)
    issue_key(consumer=Consumer.objects.get(name="gold"), name="ours", by="olga")
    assert first_run.revoke_demo(tmp_path) == 4
    assert Key.objects.get(revoked_at=None).name == "ours"
    assert first_run.revoke_demo(tmp_path) == 0


def test_an_account_that_up_did_not_create_is_left_alone(tmp_path):
    User.objects.create_superuser("admin", password="a-long-enough-passphrase")
    assert first_run.administrator(tmp_path) == first_run.Administrator("admin", None, None, is_new=False)
    assert not Token.objects.exists()


def test_tables_of_a_newer_version_are_refused_with_words(tmp_path):
    MigrationRecorder(connection).record_applied("keys", "0999_from_the_future")
    with pytest.raises(first_run.NewerTables, match=r"keys\.0999_from_the_future"):
        first_run.migrate(tmp_path)


def test_tables_that_are_up_to_date_are_left_alone(tmp_path):
    assert first_run.migrate(tmp_path) == 0
    assert list(tmp_path.glob("*.sqlite3")) == []


def test_tables_are_copied_before_they_are_changed(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(first_run, "call_command", lambda *arguments, **options: ran.append(arguments))
    before = tmp_path / "before.sqlite3"
    with sqlite3.connect(before) as file:
        file.execute("CREATE TABLE kept (said TEXT)")
        file.execute("INSERT INTO kept VALUES ('yes')")
    file.close()
    monkeypatch.setattr(first_run, "connection", Elsewhere(before))
    monkeypatch.setattr(first_run, "MigrationExecutor", Behind)
    assert first_run.migrate(tmp_path) == 1
    assert ran == [("migrate",)]
    (copy,) = tmp_path.glob("apimgmt-*.sqlite3")
    with sqlite3.connect(copy) as file:
        assert file.execute("SELECT said FROM kept").fetchall() == [("yes",)]
    file.close()


class Elsewhere:
    """A connection to another SQLite file: VACUUM runs in no transaction, and a test is one."""

    vendor = "sqlite"

    def __init__(self, path):
        self._path = path

    def cursor(self):
        return Cursor(self._path)


class Cursor:
    def __init__(self, path):
        self._file = sqlite3.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def execute(self, text, parameters):
        self._file.execute(text.replace("%s", "?"), parameters)


class Behind:
    """Migrations of which one was made and one is to be made."""

    def __init__(self, connection):
        self.loader = self
        self.graph = self
        self.disk_migrations = {("keys", "0001"): None, ("keys", "0002"): None}
        self.applied_migrations = {("keys", "0001"): None}

    def leaf_nodes(self):
        return [("keys", "0002")]

    def migration_plan(self, targets):
        return targets
