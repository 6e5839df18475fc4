"""No cache keeps what operators see."""

import pytest

SEEN_BY_OPERATORS = [
    "/api/v1/tiers",
    "/api/v1/schema/",
    "/api/v1/nothing",
    "/admin/",
    "/dashboards/usage",
    "/docs/refusals",
]


@pytest.mark.parametrize("path", SEEN_BY_OPERATORS)
def test_what_operators_see_is_kept_by_no_cache(admin_client, path):
    assert "no-store" in admin_client.get(path)["Cache-Control"]


def test_pictures_of_documents_may_be_kept(client):
    assert client.get("/docs/images/overview.png")["Cache-Control"] == "max-age=3600"
