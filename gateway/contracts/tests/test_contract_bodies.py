"""What the OpenAPI document says of the bodies of jobs, and of the methods that a path takes."""

import pytest

from gateway.contracts import openapi
from gateway.contracts.tests.test_contract_openapi import document, route
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.picture import Snapshot

REPORT = {"type": "object", "properties": {"type": {"enum": ["daily"]}}, "required": ["type"]}
NOTES = {"type": "object", "properties": {"text": {"$ref": "#/$defs/text"}}, "$defs": {"text": {"type": "string"}}}


def body_of(written, path, method="post"):
    return written["paths"][path][method]["requestBody"]


def work(type_, **more):
    return route("work", "/work", methods=["POST"], handler={"type": "job", "job_type": type_}, **more)


def test_the_body_of_a_job_is_what_its_type_takes():
    written = document(work("reports"), inputs={"reports": REPORT})
    body = body_of(written, "/work")
    assert body["required"], "no body is the input {}, which lacks the member"
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/reports-input"}
    assert written["components"]["schemas"]["reports-input"] == REPORT
    assert not body_of(document(work("notes"), inputs={"notes": NOTES}), "/work")["required"]


def test_a_job_submitted_by_its_types_name_has_the_body_of_any_type_that_the_key_may_use():
    inputs = {"notes": NOTES, "reports": REPORT}
    written = document(inputs=inputs)
    body = body_of(written, "/v1/jobs/{type}")
    references = [f"#/components/schemas/{type_}-input" for type_ in inputs]
    assert body["content"]["application/json"]["schema"] == {"anyOf": [{"$ref": name} for name in references]}
    assert not body["required"]
    written = document(inputs=inputs, scopes=("jobs:reports",))
    body = body_of(written, "/v1/jobs/{type}")
    assert body["content"]["application/json"]["schema"] == {"$ref": references[1]}
    assert "notes-input" not in written["components"]["schemas"]


def test_a_policy_of_a_job_is_what_its_body_is_described_by():
    policies = [{"type": "validate", "options": {"schema": {"type": "object", "maxProperties": 1}}}]
    written = document(work("reports", policies=policies), inputs={"reports": REPORT})
    assert body_of(written, "/work")["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/work-body"
    }


@pytest.mark.parametrize(
    "methods",
    [
        ["GET"],
        ["POST", "QUERY"],
        ["GET", "PROPFIND", "REPORT"],
        ["HEAD"],
        ["DELETE", "OPTIONS"],
        ["HEAD", "GET"],
    ],
)
def test_the_document_has_the_methods_that_a_refusal_allows(methods):
    routes = (route("one", "/a/{id}", methods=methods), route("two", "/a/{name}", methods=["PUT", "MKCOL"]))
    with pytest.raises(Refused) as raised:
        Snapshot.from_documents({"route": routes}).match(Protocol.HTTP, "BREW", "/a/1")
    (allow,) = (value.decode() for name, value in raised.value.headers if name == b"allow")
    written = document(*routes)
    item, others = written["paths"]["/a/{id}"], written["paths"]["/a/{id}"]["additionalOperations"]
    described = {name.upper() for name in item if name not in ("parameters", "additionalOperations")} | set(others)
    assert described | ({"HEAD"} if "GET" in described else set()) == set(allow.split(", "))
    ids = [operation["operationId"] for name, operation in item.items() if "operationId" in operation]
    ids += [operation["operationId"] for operation in others.values()]
    assert len(ids) == len(set(ids))
    assert written["openapi"] == "3.2.0"
    assert (
        document(route("one", "/a", methods=[name for name in methods if name in openapi.METHODS]))["openapi"]
        == "3.1.0"
    )


def test_a_query_has_a_body_and_a_route_of_any_method_says_so():
    policies = [{"type": "validate", "options": {"schema": {"type": "object"}}}]
    written = document(
        route("search", "/search", methods=["QUERY"]),
        route("strict", "/strict", methods=["QUERY"], policies=policies),
    )
    assert body_of(written, "/search", "query") == {"content": {"*/*": {}}}
    content = body_of(written, "/strict", "query")["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/strict-body"}
    written = document(route("any", "/any", methods=["*"]))
    assert written["paths"]["/any"]["x-any-method"]
    assert set(written["paths"]["/any"]) == {"get", "post", "put", "patch", "delete", "options", "x-any-method"}
    assert written["openapi"] == "3.1.0"
