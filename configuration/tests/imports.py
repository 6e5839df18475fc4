"""Documents to import, and short ways to import them."""

import json
from pathlib import Path

import pytest

from configuration.importers import asyncapi
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
    with pytest.raises(DocumentError) as refused:
        described_objects(document(data))
    return str(refused.value)


def channels_of(data):
    return {wanted.values["address"]: wanted.values for wanted in asyncapi.channels(document(data))}


def zuplo_of(route, path="/x", **item):
    return {path: {"get": {"operationId": "x", "x-zuplo-route": route}, **item}}


def handler(export="urlRewriteHandler", **options):
    return {"export": export, "options": options or {"rewritePattern": "https://up.example/x"}}


def asyncapi_3(channel, operations=None, servers=None, **more):
    channels = {"c": {"address": "a", **channel}}
    return {"asyncapi": "3.0.0", "channels": channels, "operations": operations or {}, "servers": servers or {}, **more}
