"""Limits guesses of passwords so that nobody can lock out others, or the owner of an account for ever.

An attempt counts against its account and address together, against its address, and against its account from all
addresses; a correct one is taken back. A browser that has signed in to the account before keeps a signed cookie and
counts against a budget of its own, so that what strangers send does not concern it. Where an account's budget is used
up by guesses from many networks, each network still gets a few attempts: enough for the owner in a new place.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import AuthenticationFailed

from gateway.identity.client_address import network_of
from gateway.refusals import Reason, Refused
from operators.attempts import Budget, Counter, UsedUp, attempts
from operators.known_devices import device_of

PAIR = Budget("sign-in-pair", 10, 60)
"""Of one account from one address."""
ADDRESS = Budget("sign-in-address", 30, 60)
"""Of all accounts from one address."""
ACCOUNT = Budget("sign-in-account", 100, 3600)
"""Of one account from all addresses."""
TURN = Budget("sign-in-turn", 2, 600)
"""Of one account from one network, while the budget of the account is used up."""
TURN_BITS = {"ipv4_bits": 24, "ipv6_bits": 48}
DEVICE = Budget("sign-in-device", 10, 60)
"""Of one account from one browser that has signed in to it before."""
WRONG_TOKENS = Budget("wrong-tokens", 20, 60)
"""Unknown tokens of the management API from one address. A valid token is never refused for them."""
CHECKS_AT_ONCE = 2
"""Passwords checked at once, of known browsers and of others each: a check is made to cost processor time."""
CHECK_WAIT_S = 5.0

_checks = {is_known: threading.BoundedSemaphore(CHECKS_AT_ONCE) for is_known in (True, False)}


class Attempt:
    """One attempt to prove an account."""

    def __init__(self) -> None:
        self.has_succeeded = False

    def succeed(self) -> None:
        """Take the attempt back: it was no guess."""
        self.has_succeeded = True


@contextlib.contextmanager
def attempt(request: HttpRequest, account: str) -> Iterator[Attempt]:
    """Count an attempt to prove an account by a password, or by anything else that can be guessed. Raises Refused.

    It counts from the start, so that parallel guesses are bounded too, and until ``succeed`` was called.
    """
    device = device_of(request, account)
    counters = _charged(request, account, device)
    made = Attempt()
    try:
        with _place_to_check(is_known=device is not None):
            yield made
    except _Busy:
        made.succeed()
        raise
    finally:
        if made.has_succeeded:
            attempts.refund(*counters)


def _charged(request: HttpRequest, account: str, device: str | None) -> tuple[Counter, ...]:
    """Charge an attempt, and return the counters that were charged. Raises UsedUp."""
    now_s, address = time.time(), address_of(request)
    if device is not None:
        counters: tuple[Counter, ...] = (DEVICE.counter(device, account, now_s=now_s),)
        attempts.charge(*counters)
        return counters
    first = (PAIR.counter(account, address, now_s=now_s), ADDRESS.counter(address, now_s=now_s))
    counters = (*first, ACCOUNT.counter(account, now_s=now_s))
    try:
        attempts.charge(*counters)
    except UsedUp as used_up:
        if used_up.budget is not ACCOUNT:
            raise
        network = network_of(_ip(request), **TURN_BITS)
        counters = (*first, TURN.counter(account, network, now_s=now_s))
        attempts.charge(*counters)
    return counters


class _Busy(Refused):
    """Too many passwords are being checked at the moment."""


@contextlib.contextmanager
def _place_to_check(*, is_known: bool) -> Iterator[None]:
    """Wait for a place among the checks that run at once. Raises Refused ``overloaded``."""
    places = _checks[is_known]
    if not places.acquire(timeout=CHECK_WAIT_S):
        raise _Busy(Reason.OVERLOADED, "Too many attempts to sign in at once.", retry_after_s=CHECK_WAIT_S)
    try:
        yield
    finally:
        places.release()


def address_of(request: HttpRequest) -> str:
    """Return the network that attempts of a request's client are counted by."""
    return network_of(_ip(request))


def wrong_token(request: HttpRequest, failed: AuthenticationFailed) -> AuthenticationFailed | Refused:
    """Count an unknown token, and return its refusal, or that by the budget of the address."""
    try:
        attempts.charge(WRONG_TOKENS.counter(address_of(request), now_s=time.time()))
    except UsedUp as used_up:
        return used_up
    return failed


class LimitedPasswords(ModelBackend):
    """Django's check of passwords within the budgets above: every page that authenticates with one uses it."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        """Return the user whose password this is, or None. Raises Refused; code without a request has no limit."""
        if request is None or username is None or not request.META:
            return super().authenticate(request, username, password, **kwargs)
        with attempt(request, username) as made:
            user = super().authenticate(request, username, password, **kwargs)
            if user is not None:
                made.succeed()
            return user


def limited_password_change(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Limit guesses of the current password on the page that changes it."""

    @wraps(view)
    def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        with attempt(request, request.user.get_username()) as made:
            response = view(request, *args, **kwargs)
            if response.status_code == 302:
                made.succeed()
            return response

    return limited


def _ip(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))
