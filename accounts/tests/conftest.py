import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache

from operators.attempts import attempts

PASSWORD = "a-long-enough-passphrase"


@pytest.fixture
def operator(db):
    return User.objects.create_superuser("olga", "olga@example.com", PASSWORD)


@pytest.fixture
def make_operator(db):
    """Return a function that creates an operator with the rights that it is given."""

    def make(name, *rights):
        user = User.objects.create_user(name, f"{name}@example.com", PASSWORD, is_staff=True)
        user.user_permissions.add(*Permission.objects.filter(codename__in=rights))
        return user

    return make


@pytest.fixture
def sign_in(client):
    """Return a function that signs in on the admin's own form."""

    def sign(name="olga", password=PASSWORD, browser=client):
        return browser.post("/admin/login/?next=/admin/", {"username": name, "password": password})

    return sign


@pytest.fixture(autouse=True)
def _no_attempts_yet():
    cache.clear()
    attempts.forget()
