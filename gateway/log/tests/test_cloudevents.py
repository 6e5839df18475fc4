"""CloudEvents as the specification's formats and bindings write them."""

import pytest

from gateway.log.cloudevents import binary_attributes, structured
from gateway.refusals import Refused

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def test_an_attribute_that_is_null_is_not_set():
    content = structured(EVENT | {"subject": None, "datacontenttype": None, "data_base64": None, "data": None})
    assert (content.data, content.content_type) == (b"null", "application/json")
    assert content.attributes == {"id": "1", "source": "/s", "type": "t"}


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
def test_a_required_attribute_that_is_null_is_missing(name):
    with pytest.raises(Refused) as refused:
        structured(EVENT | {name: None})
    assert refused.value.members == {"pointer": f"/{name}"}


def test_data_is_given_once():
    with pytest.raises(Refused) as refused:
        structured(EVENT | {"data": 1, "data_base64": "MQ=="})
    assert refused.value.members == {"pointer": "/data_base64"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b'"Euro%20%E2%82%AC"', "Euro €"), (b"%22quoted%22", '"quoted"'), (b'"a \\"b\\" \\\\"', 'a "b" \\'),
        (b"plain", "plain"), (b'"', '"'), (b"100%25", "100%"), (b" spaced ", "spaced"),
    ],
)  # fmt: skip
def test_a_header_is_unquoted_and_then_decoded_once(written, meant):
    headers = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
    assert binary_attributes([*headers, (b"ce-subject", written)])["subject"] == meant
