"""Objects know their document: by its title and file, or the name that the operator gives it."""

import pytest

from configuration.importers.options import Options
from configuration.importing import import_document
from configuration.yaml_documents import DocumentError, write
from configuration.yaml_documents import parse as parsed
from events.models import Channel
from routes.models import Route

pytestmark = pytest.mark.django_db


def api(title, *paths, server="https://up.example"):
    described = {path: {"get": {"operationId": path[1:]}} for path in paths}
    return {"openapi": "3.0.0", "info": {"title": title}, "servers": [{"url": server}], "paths": described}


def imported(data, file, **options):
    return import_document(parsed(write(data), file), options=Options(**options), by="ann")


def origins():
    return set(Route.objects.values_list("imported_from", flat=True))


@pytest.mark.parametrize("prefix", ["", "/shop"])
@pytest.mark.parametrize(("title", "file"), [("Pets 2", "a.json"), ("Pets", "b.json")])
def test_a_document_whose_title_or_file_changed_keeps_its_routes(title, file, prefix):
    imported(api("Pets", "/a", "/b"), "a.json", prefix=prefix)
    suffix = f" at {prefix}" if prefix else ""
    assert origins() == {f"Pets (a.json){suffix}"}
    diff = imported(api(title, "/a", "/b"), file, prefix=prefix)
    assert diff.summary() == "2 updated."
    assert {name for entry in diff.entries for name, *_ in entry.fields()} == {"imported_from"}
    assert origins() == {f"{title} ({file}){suffix}"}
    assert not imported(api(title, "/a", "/b"), file, prefix=prefix)


@pytest.mark.parametrize(
    "other",
    [
        (api("Cats", "/a", "/b"), "b.json"),
        (api("Pets", "/a"), "b.json"),
        (api("Pets", "/a", "/b", "/c"), "b.json"),
        (api("Pets", "/a", "/b", server="https://staging.example"), "b.json"),
    ],
)
def test_a_document_that_is_not_the_same_is_another_one(other):
    """Another title and file, fewer operations, more of them, or another upstream."""
    imported(api("Pets", "/a", "/b"), "a.json")
    with pytest.raises(
        DocumentError, match=r"made from Pets \(a.json\).*name it with --document if it is the same one"
    ):
        imported(*other)
    assert origins() == {"Pets (a.json)"}


def test_a_document_may_be_named_whatever_its_title_and_file():
    for title, file in (("Pets", "a.json"), ("Dogs", "b.json")):
        imported(api(title, "/a"), file, document="animals")
        assert origins() == {"animals"}
    imported(api("Cats", "/a", "/c"), "c.json", document="animals")
    with pytest.raises(DocumentError, match="made from animals"):
        imported(api("Dogs", "/a"), "b.json")


def test_a_document_gets_a_name_later_and_another_one_takes_the_name_of_the_first():
    imported(api("Pets", "/a"), "a.json")
    assert imported(api("Pets", "/a"), "a.json", document="animals").summary() == "1 updated."
    imported(api("Pets", "/a", "/b"), "new.json", document="animals")
    assert origins() == {"animals"}


def test_a_channel_knows_its_document_under_another_file():
    data = {"asyncapi": "2.6.0", "info": {"title": "T", "version": "1"}, "channels": {"a": {}, "b": {}}}
    imported(data, "a.yaml")
    imported(data, "b.yaml")
    assert set(Channel.objects.values_list("imported_from", flat=True)) == {"T (b.yaml)"}


def test_a_name_that_cannot_be_shown_is_refused():
    with pytest.raises(DocumentError, match="--document must be a name of at most 200 printable characters"):
        Options(document="a\nb")
