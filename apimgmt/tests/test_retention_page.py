"""The page of what is kept names every setting with its default, every table, and every stream."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from django.apps import apps

from apimgmt.kept import Retention
from apimgmt.retention import AFTERWARDS, KINDS
from gateway.link import nats

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "retention.md").read_text()
STREAMS = [value for name, value in vars(nats).items() if name.endswith("_STREAM")]
ROWS_OF = {
    "analytics": {"UsageMinute": "usage", "LimitMinute": "what limits refused", "ConnectionRecord": "connections"},
    "audit": {"Change": "the audit log"},
    "consumers": {"Consumer": "consumers", "Tier": "tiers"},
    "events": {"Channel": "channels", "Schema": "schemas", "Subject": "subjects", "SchemaVersion": "versions",
               "Subscription": "subscriptions", "DeadLetter": "dead letters", "Connector": "connectors",
               "DeadLetterJob": "redrive or discard dead letters"},
    "accounts": {"Token": "tokens of operators", "Authenticator": "second factors", "RecoveryCode": "second factors",
                 "Identity": "identities"},
    "jobs": {"Job": "jobs"},
    "keys": {"Key": "keys", "JwtIssuer": "issuers"},
    "routes": {"Route": "routes"},
    "sessions": {"Session": "sessions"},
    "admin": {"LogEntry": "own log of recent actions"},
    "auth": {"User": "accounts of operators", "Group": "groups"},
}  # fmt: skip
"""How the page calls the rows of each table."""
FEW = {
    "analytics": {"GatewayProcess", "ProjectorPosition"},
    "audit": {"Checkpoint"},
    "events": {"DeadLetterPosition"},
    "auth": {"Permission"},
    "contenttypes": {"ContentType"},
}
"""Tables whose rows are as many as processes, streams and operators, or are deleted with what they belong to."""


@pytest.mark.parametrize("field", fields(Retention), ids=lambda field: field.name)
def test_every_setting_is_on_the_page_with_its_default(field):
    name = f"RETENTION_{field.name.upper()}"
    assert re.search(rf"`{name}` {field.default}\b", PAGE), name


@pytest.mark.parametrize("model", apps.get_models(), ids=lambda model: model._meta.label)
def test_every_table_is_on_the_page(model):
    label, name = model._meta.app_label, model.__name__
    assert name in FEW.get(label, ()) or ROWS_OF[label][name] in PAGE, f"say on the page what bounds {label}.{name}"


@pytest.mark.parametrize("stream", STREAMS)
def test_every_stream_is_on_the_page(stream):
    assert f"`{stream}`" in PAGE


def test_every_kind_of_the_metric_is_on_the_page():
    assert [what for what in {**KINDS, **AFTERWARDS} if f"`{what}`" not in PAGE] == []
