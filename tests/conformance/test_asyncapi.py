"""What the gateway says of its channels, read by the official AsyncAPI parser."""

import json
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configuration.tests.test_round_trip import CHANNELS, WHERE
from gateway.contracts import asyncapi
from gateway.contracts.view import View
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from gateway.wire.subjects import Template
from tests.conformance.clients import HERE
from tests.product import tool

SAMPLES = 100


def parsed(documents):
    """Return the parser's findings for each document."""
    lines = "\n".join(json.dumps(document) for document in documents)
    outcome = subprocess.run(
        [tool("node"), "asyncapi.mjs"], cwd=HERE, input=lines, capture_output=True, text=True, timeout=240, check=True
    )
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def any_documents():
    found = []

    @settings(
        max_examples=SAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(CHANNELS, max_size=4, unique_by=lambda channel: channel["address"]))
    def write(channels):
        documents = [{**one, "stream": "", "subject": Template.parse(one["address"]).subject} for one in channels]
        snapshot = Snapshot.from_documents({"channel": documents})
        caller = Principal(consumer="acme", key="k", tier="free", scopes=("*",))
        found.append(asyncapi.build_asyncapi(View(caller, WHERE, tuple(snapshot.channels()))))

    write()
    return found


@pytest.mark.services
@pytest.mark.timeout(300)
def test_the_parser_reads_whatever_channels_there_are():
    documents = any_documents()
    for document, found in zip(documents, parsed(documents), strict=True):
        assert not found["errors"], json.dumps(document)
        addresses = [channel["address"] for channel in document["channels"].values()]
        assert found["seen"]["channels"] == addresses
        assert len(found["seen"]["operations"]) == 2 * len(addresses)


ENUM = {"type": "enum", "name": "shop.Kind", "symbols": ["A", "B"], "default": "A", "aliases": ["Sort"]}
REGISTERED = {
    "JSON": {"type": "object", "properties": {"id": {"$ref": "#/$defs/id"}}, "$defs": {"id": {"type": "integer"}}},
    "primitive": "string",
    "metadata": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
    "union": ["null", {"type": "array", "items": {"type": "map", "values": {"type": "int"}}}],
    "record": {
        "type": "record", "name": "shop.User", "doc": "Who buys",
        "fields": [
            {"name": "mail", "type": ["null", "string"], "default": None, "aliases": ["email"], "order": "ignore"},
            {"name": "kind", "type": {"type": ENUM}},
            {"name": "other", "type": {"type": "shop.Kind"}},
            {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
            {"name": "friend", "type": ["null", "User"]},
        ],
    },
    "unfit-alias": {"type": "record", "name": "R", "aliases": ["a.B"], "fields": []},
    "unfit-doc": {"type": "record", "name": "R", "doc": 5, "fields": []},
    "unfit-order": {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "order": "x"}]},
    "unfit-type": {"type": {"type": "record", "name": "R", "fields": []}, "doc": "x"},
}  # fmt: skip


@pytest.mark.services
def test_the_parser_reads_schemas_of_the_registry():
    latest = {
        name: {"version": 1, "id": 1, "type": "JSON" if name == "JSON" else "AVRO", "schema": json.dumps(schema),
               "references": []}
        for name, schema in REGISTERED.items()
    }  # fmt: skip
    subjects = [{"name": name, "compatibility": "", "mode": "", "latest": version} for name, version in latest.items()]
    channels = [
        {"address": name, "title": "", "schema": {"subject": name}, "on_invalid": "reject", "retention": {},
         "protocols": [], "stream": "", "subject": name}
        for name in REGISTERED
    ]  # fmt: skip
    snapshot = Snapshot.from_documents({"channel": channels, "schema": subjects})
    caller = Principal(consumer="acme", key="k", tier="free", scopes=("*",))
    document = asyncapi.build_asyncapi(View(caller, WHERE, tuple(snapshot.channels()), subjects=snapshot.subjects()))
    assert set(document["components"]["schemas"]) == {name for name in REGISTERED if not name.startswith("unfit")}
    (found,) = parsed([document])
    assert not found["errors"]


@pytest.mark.services
@pytest.mark.xdist_group("product")
def test_the_parser_reads_what_a_running_product_serves(product, tmp_path):
    status, headers, document = product.call("GET", "/v1/asyncapi.json", key=product.ready["keys"]["gold"])
    assert (status, headers["content-type"]) == (200, "application/json")
    (found,) = parsed([document])
    assert not found["errors"]
    assert "trades" in found["seen"]["channels"]
    assert {"send trades", "receive trades"} <= set(found["seen"]["operations"])
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(document))
    assert "Nothing to change." in product.manage("import", "--dry-run", str(mine)).stdout
