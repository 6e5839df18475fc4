import threading
import time

import pytest
from django.db import connections

from audit.models import Change
from audit.publication import wait_until_published
from audit.services import mark_published
from consumers.services import create_tier


@pytest.mark.django_db
def test_nobody_waits_if_everything_is_published():
    assert wait_until_published(0)


@pytest.mark.django_db
def test_a_wait_that_takes_too_long_returns_false():
    create_tier(name="gold", by="ada")
    assert not wait_until_published(0.05)


@pytest.mark.django_db(transaction=True)
def test_a_writer_waits_for_its_own_change_and_not_for_later_ones():
    create_tier(name="gold", by="ada")
    first = list(Change.objects.unpublished().values_list("pk", flat=True))

    def relay():
        time.sleep(0.1)
        create_tier(name="silver", by="bob")
        mark_published(first)
        connections.close_all()

    relaying = threading.Thread(target=relay)
    relaying.start()
    assert wait_until_published(20)
    relaying.join()
    assert Change.objects.unpublished().count() == 1
