"""What a running product serves as OpenAPI, read by the validator of the OpenAPI tooling for Python."""

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("product")]


def test_the_validator_reads_what_a_running_product_serves(product):
    status, headers, document = product.call("GET", "/v1/openapi.json", key=product.ready["keys"]["gold"])
    assert (status, headers["content-type"]) == (200, "application/json")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert {"/quotes/{rest}", "/v1/me", "/v1/subscriptions"} <= set(document["paths"])


def test_what_it_says_of_an_address_is_what_the_address_answers(product):
    key = product.ready["keys"]["gold"]
    _, _, document = product.call("GET", "/v1/openapi.json", key=key)
    described = document["paths"]["/v1/me"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    status, _, me = product.call("GET", "/v1/me", key=key)
    assert status == 200
    assert set(described["required"]) <= set(me) <= set(described["properties"])
    status, _, problem = product.call("GET", "/v1/me")
    schema = document["components"]["schemas"]["Problem"]
    assert status == 401
    assert set(schema["required"]) <= set(problem)
    assert problem["reason"] in schema["properties"]["reason"]["enum"]
