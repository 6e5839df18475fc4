import pytest

from configuration.importers import asyncapi, openapi, zuplo
from configuration.importers.options import Options
from configuration.importers.report import Report
from configuration.importing import described_objects, import_document, import_file
from configuration.kinds import ROUTE
from configuration.tests.imports import MARKET_DATA, POLICIES, TEMPERATURE, asyncapi_3, document
from configuration.yaml_documents import DocumentError, parse, read
from events.models import Channel
from events.services import create_channel, update_channel
from gateway.schemas.checker import compile_schema
from routes.models import Route
from routes.services import create_route


@pytest.mark.django_db
def test_the_temperature_document_becomes_a_channel_for_every_protocol():
    diff = import_file(TEMPERATURE, by="ann")
    assert [(entry.action, entry.kind, entry.name) for entry in diff.entries] == [
        ("created", "channel", "sensors/temperature")
    ]
    channel = Channel.objects.get()
    assert channel.protocols == []
    assert channel.on_invalid == "dead-letter"
    validator = compile_schema(channel.schema)
    assert validator.is_valid({"deviceId": "d", "value": 21.5, "unit": "C"})
    assert not validator.is_valid({"value": "warm"})


@pytest.mark.django_db
def test_importing_again_changes_nothing_and_keeps_other_fields():
    import_file(TEMPERATURE, by="ann")
    update_channel(Channel.objects.get(), retention={"max_events": 5}, protocols=["mqtt"], title="Mine", by="ann")
    assert not import_file(TEMPERATURE, by="ann")
    channel = Channel.objects.get()
    assert (channel.retention, channel.protocols, channel.title) == ({"max_events": 5}, ["mqtt"], "Mine")


@pytest.mark.django_db
def test_an_existing_channel_gets_the_schema():
    create_channel(address="sensors/temperature", by="ann")
    diff = import_file(TEMPERATURE, by="ann")
    assert [entry.action for entry in diff.entries] == ["updated"]
    assert Channel.objects.get().schema["properties"]["unit"]["enum"] == ["C", "F"]


@pytest.mark.django_db
def test_the_market_data_document_becomes_a_websocket_route_with_its_policies():
    import_file(MARKET_DATA, by="ann")
    route = Route.objects.get()
    assert ROUTE.without_defaults(route.representation()) | {"policies": route.policies} == {
        "name": "ws-market-data",
        "path": "/ws/market-data",
        "protocol": "websocket",
        "handler": {"type": "upstream", "url": "https://backend.internal/market-data"},
        "policies": POLICIES,
    }
    assert not import_file(MARKET_DATA, by="ann")


@pytest.mark.django_db
def test_the_same_with_another_host_updates_the_route(tmp_path):
    import_file(MARKET_DATA, by="ann")
    mine = tmp_path / "mine.json"
    mine.write_text(MARKET_DATA.read_text().replace("https://backend.internal", "http://127.0.0.1:8090"))
    import_file(mine, by="ann")
    assert Route.objects.get().handler["url"] == "http://127.0.0.1:8090/market-data"


@pytest.mark.django_db
def test_a_route_of_another_name_at_the_same_path_is_updated_under_its_name():
    upstream = {"type": "upstream", "url": "ws://127.0.0.1:9/"}
    create_route(name="mine", path="/ws/market-data", protocol="websocket", handler=upstream, by="ann")
    import_file(MARKET_DATA, by="ann")
    route = Route.objects.get()
    assert (route.name, route.handler["url"]) == ("mine", "https://backend.internal/market-data")


@pytest.mark.django_db
def test_an_imported_path_does_not_match_an_mqtt_route():
    create_route(name="devices", path="/mqtt", protocol="mqtt", handler={"type": "builtin"}, by="ann")
    data = {"openapi": "3.1.0", "servers": [{"url": "https://up.example"}], "paths": {"/mqtt": {"get": {}}}}
    import_document(document(data), by="ann")
    assert sorted(Route.objects.values_list("protocol", "path")) == [("http", "/mqtt"), ("mqtt", "/mqtt")]


@pytest.mark.django_db
def test_a_document_that_a_service_refuses_changes_nothing():
    paths = {"/a": {"get": {}}, "/b#c": {"get": {}}}
    data = {"openapi": "3.1.0", "servers": [{"url": "https://up.example"}], "paths": paths}
    with pytest.raises(DocumentError, match=r"x\.json:\d+:\d+: route b-c: path: Each segment must be"):
        import_document(document(data), options=Options(is_strict=True), by="ann")
    assert not Route.objects.exists()


def test_an_error_in_a_seed_document_has_its_place():
    text = MARKET_DATA.read_text().replace("rate-limit-inbound", "quota-inbound")
    report = Report()
    described_objects(parse(text, "m.json"), report=report)
    assert report.placeholders[0].startswith("m.json:18:42: the policy quota-inbound is not supported")


def test_the_formats_of_the_seed_documents_are_recognized():
    assert asyncapi.is_asyncapi(read(TEMPERATURE).data)
    assert zuplo.is_zuplo(read(MARKET_DATA).data)
    assert not openapi.is_openapi(read(MARKET_DATA).data)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("channel", "fault"),
    [
        (
            {"address": "a-{id}"},
            r"channel a-\{id\}: a parameter is a whole level.*at #/channels/c\)",
        ),
        ({"x-on-invalid": ["drop"]}, "on_invalid"),
        ({"x-protocols": 5}, "protocols: A list of http"),
        ({"x-retention": {"max_age_s": -1}}, r"retention.max_age_s: Must be a number from 1"),
        ({"messages": {"m": {"x-schema": "{"}}}, r"is not JSON: .*at #/channels/c/messages/m/x-schema"),
        ({"messages": {"m": {"x-schema": "5"}}}, "must be a JSON Schema"),
    ],
)
def test_an_invalid_channel_is_refused_at_its_place(channel, fault):
    with pytest.raises(DocumentError, match=fault):
        import_document(document(asyncapi_3(channel)), options=Options(is_strict=True), by="ann")
    assert not Channel.objects.exists()


@pytest.mark.django_db
def test_only_an_existing_key_gets_scopes():
    with pytest.raises(DocumentError, match="there is no key abc"):
        import_document(read(TEMPERATURE), key_id="abc", by="ann")
    with pytest.raises(DocumentError, match="only an AsyncAPI document determines the scopes"):
        import_document(read(MARKET_DATA), key_id="abc", by="ann")
    assert not Channel.objects.exists()
