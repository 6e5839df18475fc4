import pytest
from django.core.exceptions import ValidationError

from audit.models import Change
from events.models import Channel
from events.services import create_channel, delete_channel, update_channel
from gateway.wire.subjects import stream_of

pytestmark = pytest.mark.django_db


def make(address="trades", **fields):
    return create_channel(address=address, by="ann", **fields)


def test_a_channel_is_made_changed_and_deleted_each_recorded():
    channel = make("sensors/{id}/temperature", title="Readings", retention={"max_age_s": 60.0, "max_events": None})
    assert channel.document() == {
        "address": "sensors/{id}/temperature",
        "stream": stream_of("sensors/{id}/temperature"),
        "subject": "sensors.*.temperature",
        "subject_prefix": f"_apimgmt.events.{stream_of('sensors/{id}/temperature')}.",
        "title": "Readings",
        "content_type": "json",
        "schema": None,
        "on_invalid": "reject",
        "retention": {"max_age_s": 60},
        "protocols": [],
        "parameters": {},
    }
    update_channel(channel, on_invalid="dead-letter", schema={"type": "object"}, by="bob")
    delete_channel(channel, by="bob")
    changes = list(Change.objects.filter(kind="channel", name="sensors/{id}/temperature").order_by("id"))
    assert [change.action for change in changes] == ["created", "updated", "deleted"]
    assert (changes[1].before["on_invalid"], changes[1].after["on_invalid"]) == ("reject", "dead-letter")


@pytest.mark.parametrize("address", ["a", "a/b", "a.b", "/a", "a/", "a//b", "{x}", "a/{x}/{y}", "ä/☃", "a*b",
                                     "*", "a/*", "a/>", ">", "x>y", "a b", " ", "\u3000a", "{x}/y",
                                     "{x}/{y}/{z}", "a/{x...}", "{x...}", "{x}/{y...}"])  # fmt: skip
def test_an_address_is_levels_and_parameters(address):
    """Koenkk/zigbee2mqtt#86, evcc-io/evcc#33818, arendst/Tasmota#10258: topics hold spaces (MQTT 5, 4.7.3)."""
    assert make(address).document()["address"] == address


@pytest.mark.parametrize(
    "address", ["", "a/+", "a/#", "_apimgmt/x", "$KV/x", "$SYS", "_INBOX/x", "a\x00", "a\n", "a\u2028", "a/{x}{y}",
                "a/x{y}",                "a/{x}/{x}", "a/{}", "a/{x...}/b", "{x...}/{y...}", "a" * 201, None, 7]
)  # fmt: skip
def test_an_address_that_the_log_could_not_tell_apart_is_refused(address):
    with pytest.raises(ValidationError) as fault:
        make(address)
    assert list(fault.value.message_dict) == ["address"]
    assert not Channel.objects.exists()
    assert not Change.objects.exists()


@pytest.mark.parametrize(
    ("there", "new"), [("a/{x}", "a/{y}"), ("{x}", "{y}"), ("a/{x}/c", "a/{z}/c"), ("a/{x...}", "a/{y...}")]
)
def test_two_channels_with_the_same_addresses_are_refused(there, new):
    make(there)
    with pytest.raises(ValidationError, match="Has the same addresses as the channel"):
        make(new)


def test_addresses_may_overlap():
    for address in ("{all...}", "a/{x}", "a/b", "a/{x}/c", "a/b/{y}", "a/{x...}", "{x}/b", "{x}"):
        make(address)
    for subject, owner in (("a.b", "a/b"), ("a.c", "a/{x}"), ("a.b.c", "a/b/{y}"), ("a.*", "a/{x}"), ("q", "{x}")):
        assert Channel.objects.covering(subject).address == owner


def test_addresses_that_only_look_alike_are_fine():
    for address in ("a/b", "a.b", "a/b/c", "a//b", "a/{x}/c/d"):
        make(address)


def test_a_channel_is_declared_once():
    make()
    with pytest.raises(ValidationError) as fault:
        make()
    assert list(fault.value.message_dict) == ["address"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"schema": "string"}, "schema"),
        ({"schema": {"type": "nonsense"}}, "schema"),
        ({"schema": {"$ref": "http://a.example/schema"}}, "schema"),
        ({"schema": {"subject": "readings"}}, "schema"),
        ({"on_invalid": "ignore"}, "on_invalid"),
        ({"retention": []}, "retention"),
        ({"retention": {"max_age": 5}}, "retention.max_age"),
        ({"retention": {"max_age_s": 0}}, "retention.max_age_s"),
        ({"retention": {"max_age_s": -1}}, "retention.max_age_s"),
        ({"retention": {"max_age_s": 10**12}}, "retention.max_age_s"),
        ({"retention": {"max_bytes": "1"}}, "retention.max_bytes"),
        ({"retention": {"max_events": 1.5}}, "retention.max_events"),
        ({"retention": {"max_events": True}}, "retention.max_events"),
        ({"retention": {"max_events": float("nan")}}, "retention.max_events"),
        ({"protocols": ["http", "gopher"]}, "protocols"),
        ({"protocols": "http"}, "protocols"),
        ({"title": "x" * 201}, "title"),
        ({"title": None}, "title"),
    ],
)
def test_a_fault_names_its_field(fields, field):
    with pytest.raises(ValidationError) as fault:
        make(**fields)
    assert list(fault.value.message_dict) == [field]
    channel = make()
    with pytest.raises(ValidationError) as fault:
        update_channel(channel, by="bob", **fields)
    assert list(fault.value.message_dict) == [field]


@pytest.mark.parametrize("field", ["address", "stream", "color"])
def test_what_makes_a_channel_what_it_is_cannot_be_changed(field):
    with pytest.raises(ValidationError) as fault:
        update_channel(make(), by="bob", **{field: "x"})
    assert list(fault.value.message_dict) == [field]
