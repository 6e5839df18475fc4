"""Documents to import, and short ways to import them."""

import json
from pathlib import Path

import pytest

from configuration.importers import asyncapi, openapi, zuplo
from configuration.importers.options import Options
from configuration.importers.report import Report
from configuration.importing import described_objects
from configuration.yaml_documents import DocumentError, parse

SEED = Path(__file__).parents[2] / "tests" / "conformance" / "seed"
TEMPERATURE = SEED / "temperature.asyncapi.yaml"
MARKET_DATA = SEED / "market-data.zuplo.json"
POLICIES = [
    {"type": "api-key", "options": {}, "mode": "enforce"},
    {"type": "rate-limit", "options": {}, "mode": "enforce"},
]
SERVERS = {
    "broker": {"host": "b.example", "protocol": "secure-mqtt"},
    "web": {"$ref": "#/components/servers/socket"},
    "kafka": {"host": "k.example", "protocol": "kafka"},
}
SOCKET = {"servers": {"socket": {"host": "w.example", "protocol": "wss"}}}


def document(data):
    return parse(json.dumps(data, indent=1), "x.json")


def refusal_of(data):
    """Return every fault of a document that is refused if anything would be skipped."""
    report = Report()
    try:
        described_objects(document(data), None, Options(), report)
    except DocumentError as error:
        return str(error)
    with pytest.raises(DocumentError) as refused:
        report.require_none(is_strict=True)
    return str(refused.value)


def openapi_routes(of, **options):
    return openapi.routes(of, Options(**options), Report())


def zuplo_routes(of, policies=None, **options):
    return zuplo.routes(of, policies, Options(**options), Report())


def channels_of(data):
    described = asyncapi.channels(document(data), Options(), Report())
    return {wanted.values["address"]: wanted.values for wanted in described}


def zuplo_of(route, path="/x", **item):
    return {path: {"get": {"operationId": "x", "x-zuplo-route": route}, **item}}


def handler(export="urlRewriteHandler", **options):
    return {"export": export, "options": options or {"rewritePattern": "https://up.example/x"}}


def asyncapi_3(channel, operations=None, servers=None, **more):
    channels = {"c": {"address": "a", **channel}}
    return {"asyncapi": "3.0.0", "channels": channels, "operations": operations or {}, "servers": servers or {}, **more}
