"""The table of refusals, and how each protocol renders one."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import CLOSE_REASON_MAX_BYTES, MQTT5_ALLOWED, TABLE, ErrorClass, Packet, Reason, Refused, Row, cut


def test_every_reason_has_its_row():
    assert set(TABLE) == set(Reason)


def test_the_table_refuses_a_code_that_its_packet_may_not_carry():
    with pytest.raises(ValueError, match="CONNACK may not carry reason code 0x8b"):
        Row("x", 503, 1012, {Packet.CONNACK: 0x8B}, 3, 320, ErrorClass.DRAINED, "yes", "x")


@pytest.mark.parametrize("row", TABLE.values(), ids=[reason.value for reason in TABLE])
def test_every_code_is_defined_by_its_protocol(row):
    assert 400 <= row.http <= 599
    assert row.websocket in range(1007, 1015) or 3000 <= row.websocket <= 4999
    assert all(packet.value in MQTT5_ALLOWED[code] for packet, code in row.mqtt5.items())
    assert 1 <= row.connack <= 5
    assert row.retry in ("no", "yes", "after retry_after_s")
    assert row.advice.endswith(".")


def test_the_documented_codes_are_unchanged():
    codes = {reason.value: (TABLE[reason].http, TABLE[reason].websocket) for reason in Reason}
    assert codes["unauthenticated"] == (401, 3000)
    assert codes["forbidden"] == (403, 3003)
    assert codes["rate-limited"] == (429, 4429)
    assert codes["too-slow"][1] == 4408
    assert codes["idle"] == (408, 3008)
    assert codes["draining"] == (503, 1012)
    assert codes["overloaded"] == (503, 1013)
    assert codes["upstream-unavailable"] == (502, 1014)


def test_problem_details_carry_the_reason_the_limits_and_when_to_retry():
    refused = Refused(Reason.RATE_LIMITED, retry_after_s=1.5, policies=("requests-per-10s",))
    problem = refused.problem()
    assert problem["type"] == "/docs/refusals#rate-limited"
    assert (problem["status"], problem["reason"], problem["retry_after_s"]) == (429, "rate-limited", 1.5)
    assert problem["violated-policies"] == ["requests-per-10s"]
    assert (b"retry-after", b"2") in refused.http_headers()


def test_a_401_names_the_authentication_scheme():
    assert any(name == b"www-authenticate" for name, _ in Refused(Reason.UNAUTHENTICATED).http_headers())


def test_the_cause_is_not_shown_to_the_caller():
    refused = Refused(Reason.UNAUTHENTICATED, cause="key-revoked")
    assert "revoked" not in orjson.dumps(refused.problem()).decode()


@given(st.sampled_from(list(Reason)), st.floats(0, 1e12) | st.none())
def test_a_close_reason_always_fits_its_frame(reason, retry_after_s):
    text = Refused(reason, retry_after_s=retry_after_s).close_reason()
    assert len(text.encode()) <= CLOSE_REASON_MAX_BYTES
    assert orjson.loads(text)["reason"] == reason.value


@given(st.text())
def test_text_is_cut_between_characters(text):
    assert text.startswith(cut(text))
    assert len(cut(text).encode()) <= CLOSE_REASON_MAX_BYTES
