import threading
import time

import pytest
from django.db import connections

from audit.models import Change
from audit.publication import wait_until_published
from audit.services import mark_published
from consumers.services import create_tier


@pytest.mark.django_db
def test_where_all_was_told_nobody_waits():
    assert wait_until_published(0)


@pytest.mark.django_db
def test_who_waits_for_too_long_is_told_so():
    create_tier(name="gold", by="ada")
    assert not wait_until_published(0.05)


@pytest.mark.django_db(transaction=True)
def test_a_writer_waits_until_the_data_plane_was_told_and_not_for_what_comes_after():
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
