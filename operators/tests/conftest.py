import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from rest_framework.test import APIClient

from accounts.tests.tokens import token_of
from consumers.services import create_consumer, create_tier
from operators.attempts import attempts


@pytest.fixture
def operator(db):
    return User.objects.create_superuser("olga", password="a-long-enough-passphrase")


@pytest.fixture
def api(operator):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token_of(operator)}")
    return client


@pytest.fixture
def tier(db):
    return create_tier(name="gold", limits=[{"metric": "requests", "amount": 10, "per": 1}], by="test")


@pytest.fixture
def consumer(tier):
    return create_consumer(name="acme", tier=tier, by="test")


@pytest.fixture(autouse=True)
def _no_tries_yet():
    cache.clear()
    attempts.forget()
