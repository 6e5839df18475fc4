from django.contrib.auth.models import Permission, User
from rest_framework.test import APIClient

from accounts.tests.tokens import token_of
from keys.services import issue_key
from operators.tests.api_cases import problem


def test_strangers_consumers_and_users_without_staff_stay_outside(api, consumer, db):
    _, text = issue_key(consumer=consumer, scopes=["call:*", "publish:*"], by="test")
    user = User.objects.create_user("eve", password="x")
    token = token_of(user)
    for headers in (
        {},
        {"HTTP_AUTHORIZATION": f"Bearer {text}"},
        {"HTTP_AUTHORIZATION": f"Token {text}"},
        {"HTTP_AUTHORIZATION": "Token"},
        {"HTTP_X_API_KEY": text},
    ):
        answer = APIClient().get("/api/v1/consumers/", **headers)
        problem(answer, 401, "unauthenticated")
        assert answer["www-authenticate"] == "Token"
    problem(APIClient().get("/api/v1/tiers", HTTP_AUTHORIZATION=f"Token {token}"), 403, "forbidden")


def test_staff_may_do_what_their_permissions_say(consumer):
    user = User.objects.create_user("sam", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_consumer"))
    client = APIClient()
    client.force_login(user)
    assert client.get("/api/v1/consumers/acme").status_code == 200
    problem(client.patch("/api/v1/consumers/acme", {"email": "a@b.example"}), 403, "forbidden")
    problem(client.get("/api/v1/consumers/acme/keys"), 403, "forbidden")
    problem(client.post("/api/v1/keys/leaked", {"key": "x"}), 403, "forbidden")


def test_a_session_writes_with_a_csrf_token_only(operator):
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(operator)
    assert client.get("/api/v1/tiers").status_code == 200
    problem(client.post("/api/v1/tiers", {"name": "t"}), 403, "forbidden")
