"""The members of documents keep their order from one gateway to the next, on every database."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import relay
from audit.models import Change
from audit.snapshot_documents import all_documents, snapshot_document
from configuration.apply import apply_text
from configuration.export import export_text
from configuration.importing import import_document
from configuration.tests.test_registered_schemas import register
from configuration.tests.test_registry_section import forget
from configuration.tests.test_round_trip import CHANNELS, SCHEMAS, VALUES, WHERE, is_usable
from configuration.yaml_documents import parse
from consumers.models import Consumer, Tier
from consumers.services import create_consumer, create_tier
from events.services import create_channel
from gateway.contracts import asyncapi, openapi
from gateway.contracts.view import View
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from routes.models import Route
from routes.services import create_route

pytestmark = pytest.mark.django_db

SLOW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
SUBJECTS = st.dictionaries(
    st.sampled_from(["z", "a/b", "ü"]), st.tuples(SCHEMAS.filter(is_usable), st.sampled_from(["", "FULL"])), max_size=3
)
UPSTREAM = {"type": "upstream", "url": "https://up.example/"}


def shuffled(dice, value):
    """Return the same JSON with the members of its objects in random order."""
    if isinstance(value, list):
        return [shuffled(dice, member) for member in value]
    if not isinstance(value, dict):
        return value
    return {name: shuffled(dice, value[name]) for name in dice.sample([*value], len(value))}


def relayed(*kinds):
    """Return the snapshot that a gateway has of the newest changes, which is that of the tables."""
    changes = {(change.kind, change.name): change for change in Change.objects.order_by("id") if change.kind in kinds}
    documents = {kind: [] for kind in kinds}
    for which, row in all_documents().items():
        if which[0] in kinds:
            encoded = relay.encode(snapshot_document(which[0], changes[which].after))
            assert encoded == relay.encode(row)
            documents[which[0]].append(json.loads(encoded))
    return Snapshot.from_documents(documents)


def described(build, *kinds):
    """Return a document of the data plane as its clients receive it."""
    snapshot = relayed(*kinds)
    caller = Principal(consumer="acme", key="k", tier="free", scopes=("*",))
    view = View(caller, WHERE, tuple(snapshot.channels()), tuple(snapshot.routes()), snapshot.subjects())
    return json.dumps(build(view))


@SLOW
@given(st.lists(CHANNELS, max_size=3, unique_by=lambda channel: channel["address"]), SUBJECTS, st.randoms())
def test_an_export_is_the_same_text_after_asyncapi_and_import(channels, subjects, dice):
    forget()
    for subject, (schema, level) in subjects.items():
        register(f"{subject}-value", shuffled(dice, {"x-order": 1, "description": "d", **schema}))
        if level:
            apply_text(json.dumps({"schemas": [{"subject": f"{subject}-value", "compatibility": level}]}), "x", by="a")
        create_channel(address=f"of/{subject}", schema={"subject": f"{subject}-value"}, by="ann")
    for fields in channels:
        create_channel(**shuffled(dice, fields), by="ann")
    create_channel(address="p/{x}/{y}/{z}", parameters={"z": {"enum": ["b", "a"]}, "x": {"enum": ["c"]}}, by="ann")
    text, document = export_text(), described(asyncapi.build_asyncapi, "channel", "schema")
    assert not import_document(parse(document, "asyncapi.json"), by="ann")
    forget()
    import_document(parse(document, "asyncapi.json"), by="ann")
    assert export_text() == text


@SLOW
@given(SCHEMAS.filter(is_usable), VALUES, st.randoms())
def test_an_export_is_the_same_text_after_apply_elsewhere(schema, value, dice):
    for model in (Consumer, Tier, Route):
        model.objects.all().delete()
    forget()
    schema = shuffled(dice, {"title": "t", "description": "d", **schema})
    tier = create_tier(name="gold", by="ann")
    create_consumer(
        name="acme", tier=tier, metadata=shuffled(dice, {"z": value, "a": 1, "m": {"y": 1, "b": 2}}), by="a"
    )
    options = shuffled(dice, {"schema": schema, "outbound_schema": {"type": "object", "default": {}}})
    create_route(name="r", path="/r", handler=UPSTREAM, policies=[{"type": "validate", "options": options}], by="ann")
    create_channel(address="a", schema=schema, by="ann")
    register("s", schema)
    text = export_text()
    assert not apply_text(text, "same.yaml", by="ann")
    for model in (Consumer, Tier, Route):
        model.objects.all().delete()
    forget()
    apply_text(text, "other.yaml", by="ann")
    assert export_text() == text


@pytest.mark.parametrize("seed", range(10))
def test_the_openapi_document_shows_the_schema_of_a_policy_in_its_order(seed):
    names = random.Random(seed).sample(["type", "zeta", "properties", "a"], 4)
    schema = {name: {"type": "object", "zeta": 1, "properties": {"zz": {}, "b": {}}, "a": "x"}[name] for name in names}
    policies = [{"type": "validate", "options": {"schema": schema}}]
    create_route(name="r", path="/r", methods=["POST"], handler=UPSTREAM, policies=policies, by="ann")
    document = json.loads(described(openapi.build_openapi, "route"))
    assert json.dumps(document["components"]["schemas"]["r-body"]) == json.dumps(schema)
