"""docs/mqtt.md gives the numbers and codes of the code."""

from dataclasses import fields
from pathlib import Path

from gateway.config import Config
from gateway.durable import mqtt_sessions
from gateway.handlers.mqtt import publishing as mqtt_publishing
from gateway.handlers.mqtt import subscribing as mqtt_subscribing
from gateway.refusals import TABLE, Packet, Reason
from gateway.wire.mqtt import session

PAGE = (Path(__file__).parents[1] / "docs" / "mqtt.md").read_text()
DEFAULTS = {field.name: field.default for field in fields(Config)}


def test_numbers_are_those_of_the_code():
    for documented in (
        f"at most {session.RECEIVE_MAX:,} may wait for PUBREL",
        f"A consumer has at most {mqtt_sessions.SESSIONS_MAX:,}",
        f"{mqtt_publishing.DELAY_MAX_S:.0f} s at most",
        f"Topic aliases: {session.TOPIC_ALIAS_MAX} a connection",
        f"at most {session.SUBSCRIPTIONS_MAX} filters",
        f"At most {session.IN_FLIGHT_MAX} events of QoS 1",
        f"At most {session.CLIENT_ID_MAX_CHARS} characters",
        f"within {DEFAULTS['mqtt_connect_timeout_s']} s",
        f"over {DEFAULTS['mqtt_packet_max_bytes'] // 1024} KiB",
        f"{DEFAULTS['send_buffer_max_events']:,} events or {DEFAULTS['send_buffer_max_bytes'] // 1024**2} MiB",
    ):
        assert documented in PAGE, documented


def test_codes_are_those_of_the_code():
    for words, code in (
        ("invalid payload | PUBACK ", TABLE[Reason.INVALID_PAYLOAD].mqtt5[Packet.PUBACK]),
        ("rate limited | PUBACK ", TABLE[Reason.RATE_LIMITED].mqtt5[Packet.PUBACK]),
        ("too-slow` (", TABLE[Reason.TOO_SLOW].mqtt5[Packet.DISCONNECT]),
        ("revoked key | DISCONNECT ", TABLE[Reason.KEY_REVOKED].mqtt5[Packet.DISCONNECT]),
        ("restart | DISCONNECT ", TABLE[Reason.DRAINING].mqtt5[Packet.DISCONNECT]),
        ("no release is completed: the connection ends (", TABLE[Reason.OVERLOADED].mqtt5[Packet.DISCONNECT]),
        ("asked for, then ", TABLE[Reason.IDLE].mqtt5[Packet.DISCONNECT]),
        ("(`$share`: ", mqtt_subscribing.SHARED_NOT_SUPPORTED),
        ("subscription identifiers (", mqtt_subscribing.IDENTIFIERS_NOT_SUPPORTED),
    ):
        assert f"{words}0x{code:02X}" in PAGE, words
