"""Keys and tickets as text."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credentials.api_keys import (
    CREDENTIAL_MAX_BYTES,
    MalformedKey,
    digest,
    from_request,
    from_text,
    new_key,
    new_ticket,
    parse,
    ticket_store_key,
    without_ticket,
)
from gateway.refusals import Reason, Refused

PEPPER = b"pepper"


def test_a_new_key_has_the_documented_shape_and_gives_its_id_back():
    key = new_key(PEPPER)
    prefix, id_, rest = key.text.split("_")
    assert (prefix, len(id_), len(rest)) == ("apim", 12, 38)
    assert parse(key.text) == id_ == key.id


def test_the_digest_depends_on_the_pepper_and_does_not_contain_the_secret():
    key = new_key(PEPPER)
    assert key.digest == digest(key.text, PEPPER) != digest(key.text, b"other")
    assert key.text.split("_")[2] not in key.digest


@given(st.integers(0, 55), st.characters(codec="ascii", categories=("L", "N")))
def test_one_wrong_character_is_detected_without_a_lookup(at, character):
    key = new_key(PEPPER).text
    typo = key[:at] + character + key[at + 1 :]
    if typo != key:
        with pytest.raises(MalformedKey):
            parse(typo)


@pytest.mark.parametrize("text", ["", "apim_", "apim_é", "apim_" + "a" * 10_000, "Bearer x", "\x00"])
def test_a_text_that_cannot_be_a_key_is_malformed(text):
    with pytest.raises(MalformedKey):
        parse(text)


def refusal(headers=(), query=b"", subprotocols=()):
    with pytest.raises(Refused) as caught:
        from_request(list(headers), query, subprotocols)
    return caught.value


def test_a_key_is_found_in_either_header_and_after_the_bearer_subprotocol():
    key = new_key(PEPPER).text
    for found in (
        from_request([(b"authorization", b"Bearer " + key.encode())], b""),
        from_request([(b"authorization", b"bearer " + key.encode())], b""),
        from_request([(b"x-api-key", key.encode())], b""),
        from_request([], b"", ["cloudevents.json", "bearer", key]),
    ):
        assert (found.kind, found.value) == ("key", key)


def test_a_ticket_is_accepted_in_the_url_and_a_key_is_not():
    ticket = new_ticket()
    assert from_request([], f"ticket={ticket}".encode()).kind == "ticket"
    for name in (b"api_key=", b"ticket=", b"a=1&%74icket="):
        assert refusal(query=name + new_key(PEPPER).text.encode()).cause == "key-in-query"


@pytest.mark.parametrize("shown", [b"ticket=tick_x", b"x=apim_y"])
def test_a_query_with_a_credential_and_too_many_fields_is_refused(shown):
    many = b"&".join(b"f%d=1" % number for number in range(200))
    assert from_request([], many) is None
    refused = refusal(query=shown + b"&" + many)
    assert (refused.reason, refused.cause) == (Reason.INVALID_REQUEST, "credential-malformed")


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"ticket=tick_a", b""),
        (b"a=1&ticket=tick_a&b=%202", b"a=1&b=%202"),
        (b"%74icket=tick_a&my_ticket=mine", b"my_ticket=mine"),
        (b"a&b=&&c", b"a&b=&&c"),
    ],
)
def test_the_ticket_is_removed_from_the_forwarded_query(query, left):
    assert without_ticket(query) == left


def test_three_parts_joined_by_dots_are_a_token():
    assert from_request([(b"authorization", b"Bearer aaa.bbb.ccc")], b"").kind == "token"


def test_two_credentials_are_refused():
    key = new_key(PEPPER).text.encode()
    assert refusal([(b"x-api-key", key), (b"authorization", b"Bearer " + key)]).reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([(b"authorization", b"Bearer ")], Reason.UNAUTHENTICATED),
        ([(b"authorization", b"Basic dXNlcjo=")], Reason.UNAUTHENTICATED),
        ([(b"authorization", b"Basic ?")], Reason.UNAUTHENTICATED),
        ([(b"x-api-key", "ключ".encode())], Reason.UNAUTHENTICATED),
        ([(b"x-api-key", b"a" * 10_240)], Reason.INVALID_REQUEST),
    ],
)
def test_an_empty_foreign_or_huge_credential_is_refused_at_once(headers, reason):
    assert refusal(headers).reason is reason


def test_no_credential_is_none():
    assert from_request([(b"accept", b"*/*")], b"a=1&b=2") is None


def test_the_store_never_sees_a_usable_ticket():
    ticket = new_ticket()
    assert ticket not in ticket_store_key(ticket)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("apim_abc", "key"),
        ("apim_a.b.c", "key"),
        ("abc", "key"),
        ("a.b", "key"),
        ("a.b.c", "token"),
        ("tick_a.b.c", "ticket"),
        ("x" * CREDENTIAL_MAX_BYTES, "key"),
    ],
)
def test_credentials_are_told_apart_by_their_shape(text, kind):
    credential = from_text(text)
    assert (credential.kind, credential.value) == (kind, text)


def test_a_credential_longer_than_a_token_may_be_is_refused():
    with pytest.raises(Refused) as caught:
        from_text("x" * (CREDENTIAL_MAX_BYTES + 1))
    assert caught.value.cause == "credential-malformed"


@pytest.mark.parametrize("scheme", ["Basic", "basic"])
def test_a_key_is_found_as_the_password_of_basic_authentication(scheme):
    encoded = base64.b64encode(b"anybody:apim_x:y").decode()
    found = from_request([(b"authorization", f"{scheme} {encoded}".encode())], b"")
    assert (found.kind, found.value) == ("key", "apim_x:y")


@pytest.mark.parametrize(
    "encoded", [b"", b"!", b"YTph*cGlt", base64.b64encode("a:é".encode()), base64.b64encode(b"a:")]
)
def test_basic_authentication_without_a_readable_password_is_refused(encoded):
    refused = refusal([(b"authorization", b"Basic " + encoded)])
    assert (refused.reason, refused.cause) == (Reason.UNAUTHENTICATED, "credential-malformed")


def test_a_bearer_subprotocol_without_a_key_is_refused():
    refused = refusal(subprotocols=["v1", "bearer"])
    assert (refused.reason, refused.cause) == (Reason.UNAUTHENTICATED, "credential-malformed")
    assert from_request([], b"", ["v1"]) is None


def test_a_ticket_has_192_bits():
    assert len(new_ticket()) == len("tick_") + 192 // 6
