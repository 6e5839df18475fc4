"""The pages: who sees them, what they cost, what they let in."""

import hashlib
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model

from analytics import pages
from gateway.refusals import Reason

pytestmark = pytest.mark.django_db

VENDORED = sorted((Path(settings.BASE_DIR) / "static" / "vendor").glob("*/SHA256SUMS"))


@pytest.fixture
def staff(client):
    client.force_login(get_user_model().objects.create_superuser("ann", password="x"))
    return client


@pytest.mark.parametrize("path", ["/dashboards/", "/dashboards/connections", "/dashboards/usage"])
def test_dashboards_are_for_staff(client, path):
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer.url.startswith("/dashboards/login")


@pytest.mark.parametrize(
    "path", ["/dashboards/", "/dashboards/connections?state=closed&consumer=x", "/dashboards/usage", "/docs/", "/"]
)
def test_staff_see_them_within_a_budget_of_queries(staff, path, django_assert_max_num_queries):
    with django_assert_max_num_queries(9):
        answer = staff.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy


async def test_the_live_stream_refuses_strangers(async_client):
    assert (await async_client.get("/dashboards/live")).status_code == 403


@pytest.mark.parametrize("name", pages.names())
def test_every_document_is_a_page(client, name):
    answer = client.get(f"/docs/{name}")
    assert answer.status_code == 200
    assert b"<h1" in answer.content


@pytest.mark.parametrize("name", ["nothing", "..%2fmanage", "decisions%2f0001", "README"])
def test_nothing_else_is_a_page(client, name):
    assert client.get(f"/docs/{name}").status_code == 404


def test_each_refusal_has_its_anchor(client):
    page = client.get("/docs/refusals").content.decode()
    for reason in Reason:
        assert f'id="{reason.value}"' in page


@pytest.mark.parametrize("sums", VENDORED, ids=lambda path: path.parent.name)
def test_vendored_files_are_as_they_were_published(sums):
    for line in sums.read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((sums.parent / name).read_bytes()).hexdigest() == digest
