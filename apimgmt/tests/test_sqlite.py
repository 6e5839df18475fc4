import copy
import threading

import pytest
from django.conf import settings
from django.db import OperationalError

from apimgmt.sqlite.base import DatabaseWrapper


@pytest.fixture
def made(tmp_path):
    """Make connections to one database, as threads of one process have them."""
    connections = []

    def connect(timeout_s=5):
        reported = copy.deepcopy(settings.DATABASES["default"]) | {"NAME": str(tmp_path / "db"), "TIME_ZONE": None}
        defaults = {"ATOMIC_REQUESTS": False, "AUTOCOMMIT": True, "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}
        reported |= defaults | {"OPTIONS": {**reported["OPTIONS"], "timeout": timeout_s}}
        connections.append(DatabaseWrapper(reported, alias="default"))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()


def begin(connection):
    connection.connect()
    connection._start_transaction_under_autocommit()


def patience_ms(connection):
    with connection.cursor() as cursor:
        return cursor.execute("PRAGMA busy_timeout").fetchone()[0]


pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif("sqlite" not in settings.DATABASES["default"]["ENGINE"], reason="SQLite is not in use"),
]


def test_who_waits_to_write_is_let_in_once_the_other_has_written(made):
    one, other = made(), made(timeout_s=60)
    begin(one)
    waits, is_in = threading.Event(), threading.Event()

    def wait():
        waits.set()
        begin(other)
        is_in.set()
        assert patience_ms(other) == 60_000
        other.close()

    waiting = threading.Thread(target=wait)
    other.inc_thread_sharing()
    waiting.start()
    assert waits.wait(20)
    assert not is_in.wait(0.1)
    one.close()
    assert is_in.wait(20)
    waiting.join(20)


def test_a_connection_is_made_while_another_writes(made):
    one, other = made(), made(timeout_s=0.2)
    begin(one)
    one.cursor().execute("CREATE TABLE written (x)")
    other.connect()


def test_who_waits_for_too_long_is_told_and_is_as_patient_as_before(made):
    one, other = made(), made(timeout_s=0.2)
    begin(one)
    with pytest.raises(OperationalError, match="locked"):
        begin(other)
    assert patience_ms(other) == 200
