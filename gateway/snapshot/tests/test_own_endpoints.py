"""Which paths under reserved prefixes are the gateway's own."""

import pytest

from gateway.snapshot.endpoints import is_own


@pytest.mark.parametrize(
    "path",
    [
        "/v1/events",
        "/v1/jobs/{type}",
        "/v1/jobs/special",
        "/v1/jobs/{id}:cancel",
        "/v1/subscriptions/{name}/events",
        "/v1/channels/{id}/events",
        "/v1/channels/a/b/events",
        "/registry/subjects/{id}",
        "/docs/{rest...}",
        "/healthz",
        "/v1/{rest...}",
        "/v1/{resource}",
        "/{version}/me",
    ],
)
def test_the_gateway_serves_something_there(path):
    assert is_own(path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/charges/{id}",
        "/v1/jobs/{id}/cancel",
        "/v1/channels/{id}",
        "/v1/subscriptions/{id}/items/{item}",
        "/v1/me.json",
        "/v2/events",
    ],
)
def test_other_paths_are_free(path):
    assert not is_own(path)
