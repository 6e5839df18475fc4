"""Two operators write at the same time. ``apimgmt/tests/test_own_engines.py`` runs this on PostgreSQL, too."""

import contextlib
import threading

import pytest
from django.core.exceptions import ValidationError
from django.db import connections, transaction

from audit import recording
from audit.locks import lock_configuration
from consumers.services import create_consumer, create_tier
from events import subscriptions
from events.models import Channel, Subscription
from events.services import create_channel
from events.subscriptions import create_subscription
from routes.models import Route
from routes.services import create_route, update_route

pytestmark = pytest.mark.django_db(transaction=True)

RACE_S = 0.5
UPSTREAM = {"type": "upstream", "url": "http://up.example/"}


@pytest.fixture
def together(monkeypatch):
    """Run two writes in threads, each held up between its check and its insert until the other is there as well."""
    meeting = threading.Barrier(2)
    save = recording._save

    def save_after_meeting(row, **options):
        with contextlib.suppress(threading.BrokenBarrierError):  # the other one waits for the lock
            meeting.wait(RACE_S)
        save(row, **options)

    def run(*writes):
        monkeypatch.setattr(recording, "_save", save_after_meeting)
        errors = []

        def write_in_thread(write):
            try:
                write()
            except ValidationError as error:
                errors.append(error)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=write_in_thread, args=(write,)) for write in writes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors

    return run


def test_two_routes_never_share_a_path(together):
    def create(name):
        return lambda: create_route(name=name, path="/quotes/{id}", handler=UPSTREAM, by="ann")

    assert len(together(create("first"), create("second"))) == 1
    assert Route.objects.count() == 1


def test_a_route_never_moves_to_a_path_that_is_being_taken(together):
    moved = create_route(name="moved", path="/old", handler=UPSTREAM, by="ann")
    errors = together(
        lambda: create_route(name="new", path="/quotes", handler=UPSTREAM, by="ann"),
        lambda: update_route(moved, path="/quotes", by="bob"),
    )
    assert len(errors) == 1
    assert Route.objects.filter(path="/quotes").count() == 1


def test_two_channels_never_have_the_same_addresses(together):
    errors = together(
        lambda: create_channel(address="sensors/{id}", by="ann"),
        lambda: create_channel(address="sensors/{name}", by="bob"),
    )
    assert len(errors) == 1
    assert Channel.objects.count() == 1


def test_a_consumer_never_exceeds_its_number_of_subscriptions(together, monkeypatch):
    monkeypatch.setattr(subscriptions, "A_CONSUMER_MAX", 1)
    consumer = create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), by="ann")
    create_channel(address="trades", by="ann")

    def create():
        create_subscription(consumer=consumer, type="pull", channel="trades", position=0, by="ann")

    assert len(together(create, create)) == 1
    assert Subscription.objects.count() == 1


def test_a_subscription_that_is_requested_twice_at_once_is_created_once(together):
    consumer = create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), by="ann")
    create_channel(address="trades", by="ann")

    def create():
        create_subscription(consumer=consumer, id="sub_1", type="pull", channel="trades", position=0, by="ann")

    assert together(create, create) == []
    assert Subscription.objects.count() == 1


def test_the_lock_needs_a_transaction():
    with pytest.raises(AssertionError):
        lock_configuration()


def test_the_lock_can_be_taken_again_in_the_same_transaction():
    with transaction.atomic():
        lock_configuration()
        lock_configuration()
