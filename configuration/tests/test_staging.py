"""An import is prepared in memory first, and then written at once."""

import pytest

from audit.models import Action, Change
from configuration import importing, staging
from configuration.importers.options import Options
from configuration.importing import import_document
from configuration.rows import SavedRows
from configuration.tests.imports import document
from configuration.yaml_documents import DocumentError
from consumers.services import create_tier
from events.models import Channel
from events.services import create_channel, delete_channel
from routes.models import Route
from routes.services import create_route

pytestmark = pytest.mark.django_db

COUNT = 25


def api(**paths):
    described = {f"/r/{number}": {"get": {"operationId": f"r{number}", "responses": {}}} for number in range(COUNT)}
    info, servers = {"title": "Large", "version": "1"}, [{"url": "https://up.example"}]
    return document({"openapi": "3.0.0", "info": info, "servers": servers, "paths": described | paths})


def imported_rows():
    """Import the document over a route of it that exists, and return the rows and records."""
    upstream = {"type": "upstream", "url": "https://old.example/"}
    create_route(name="r1", path="/r/1", handler=upstream, timeouts={"idle_s": 9}, by="ann")
    before = Change.objects.latest("id").id
    diff = import_document(api(), by="bob")
    rows = sorted((route.representation() for route in Route.objects.all()), key=lambda row: row["name"])
    changes = Change.objects.filter(id__gt=before).order_by("id")
    return diff.summary(), rows, list(changes.values("kind", "name", "action", "actor", "before", "after", "note"))


@pytest.fixture
def written(monkeypatch):
    """One for each time that rows were written in bulk."""
    numbers = []
    write = staging._write
    monkeypatch.setattr(staging, "_write", lambda statements: numbers.append(True) or write(statements))
    return numbers


def test_the_rows_and_records_are_those_of_the_services(monkeypatch, written):
    summary, rows, changes = imported_rows()
    assert written == [True]
    assert summary == f"{COUNT - 1} created, 1 updated."
    assert [change["action"] for change in changes].count(Action.UPDATED) == 1
    Route.objects.all().delete()
    monkeypatch.setattr(importing, "GatheredRows", AtOnce)
    assert imported_rows() == (summary, rows, changes)
    assert written == [True]


class AtOnce(SavedRows):
    """Rows that their services write, so that nothing is left to be written."""

    def statements(self):
        return []


def test_the_channels_and_records_are_those_of_the_services(monkeypatch):
    """A channel that was there before, one that is restored after its deletion, and one with a schema."""

    def imported_channels():
        create_channel(address="a/{x}", retention={"max_events": 5}, by="ann")
        delete_channel(create_channel(address="gone", by="ann"), by="ann")
        message = {"payload": {"type": "object"}}
        described = {
            "a/{y}": {"subscribe": {"message": message}},
            "gone": {},
            "b.c": {"publish": {"message": message}},
        }
        before = Change.objects.latest("id").id
        data = {"asyncapi": "2.6.0", "info": {"title": "T", "version": "1"}, "channels": described}
        summary = import_document(document(data), by="bob").summary()
        rows = list(Channel.objects.order_by("address").values())
        changes = Change.objects.filter(id__gt=before).order_by("id")
        return summary, [row | {"id": 0} for row in rows], list(changes.values("name", "action", "before", "after"))

    gathered = imported_channels()
    assert gathered[0] == "2 created, 1 updated."
    Channel.objects.all().delete()
    monkeypatch.setattr(importing, "GatheredRows", AtOnce)
    assert imported_channels() == gathered


def test_importing_it_again_changes_nothing(written):
    import_document(api(), by="bob")
    changes, ids = Change.objects.count(), set(Route.objects.values_list("id", flat=True))
    assert not import_document(api(), by="bob")
    assert (Change.objects.count(), set(Route.objects.values_list("id", flat=True))) == (changes, ids)


def test_a_refused_document_writes_nothing(written):
    with pytest.raises(DocumentError, match="Each segment must be plain text"):
        import_document(api(**{"/a#b": {"get": {}}}), options=Options(is_strict=True), by="bob")
    assert not Route.objects.exists()
    assert not written


def test_a_change_of_another_kind_meanwhile_is_kept(monkeypatch, written):
    rehearse(monkeypatch, lambda: create_tier(name="t", by="ann"), times=1)
    import_document(api(), by="bob")
    assert Route.objects.count() == COUNT
    assert written == [True]


@pytest.mark.parametrize("times", [1, staging.ATTEMPTS])
def test_a_route_that_is_created_meanwhile_is_not_taken_over(monkeypatch, written, times):
    upstream = {"type": "upstream", "url": "https://mine.example/"}

    def create():
        number = Route.objects.count()
        create_route(name=f"mine{number}", path=f"/r/{number}", methods=["GET"], handler=upstream, by="ann")

    rehearse(monkeypatch, create, times=times)
    import_document(api(), by="bob")
    assert set(Route.objects.values_list("path", flat=True)) == {f"/r/{number}" for number in range(COUNT)}
    assert Route.objects.filter(name__startswith="mine").count() == times
    assert written == [True]


def rehearse(monkeypatch, meanwhile, *, times):
    """Let somebody else make a change after the copy was made, a number of times."""
    lock, left = staging.lock_configuration, [times]

    def lock_after():
        if left[0]:
            left[0] -= 1
            meanwhile()
        lock()

    monkeypatch.setattr(staging, "lock_configuration", lock_after)
