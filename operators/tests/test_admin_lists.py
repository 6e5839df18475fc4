"""Lists of the admin: their filters, and what they ask before an action runs."""

import pytest
from django.urls import reverse

from events import letter_jobs
from events.models import DeadLetter
from operators.tests.admin_cases import confirm
from operators.tests.api_cases import dead_letter

LETTERS = "events_deadletter"


@pytest.fixture
def page(client, operator):
    client.force_login(operator)
    return client


def address(query=""):
    return f"{reverse(f'admin:{LETTERS}_changelist')}?{query}"


def test_letters_selected_across_pages_are_those_that_were_counted(page):
    for number in range(60):
        dead_letter(sequence=number)
    other = dead_letter(sequence=99, channel="other", address="other")
    data = {"action": "discard_selected", "_selected_action": [other.pk], "select_across": "1"}
    shown = page.post(address("channel=trades"), data)
    assert "Discard 60 dead letters?" in shown.content.decode()
    late = dead_letter(sequence=100)
    letter_jobs.run(confirm(page, LETTERS, shown).url.rpartition("/")[2])
    assert set(DeadLetter.objects.all()) == {other, late}


@pytest.mark.parametrize(
    "query", ["channel=", "channel=trades&channel=other", "chanel=trades", "dead_at=banana", "attempts=x", "e__x=1"]
)
def test_a_bad_filter_of_a_list_is_refused_and_no_action_runs(page, query):
    letter = dead_letter(protocol="")
    data = {"action": "discard_selected", "_selected_action": [letter.pk], "select_across": "1"}
    path = address(query)
    for answer in (page.get(path), page.post(path, data), page.post(path, data | {"confirmed": letter.pk})):
        assert answer.status_code == 400
        assert query.partition("=")[0] in answer.content.decode()
    assert DeadLetter.objects.exists()
    assert page.get(address("protocol=&q=")).status_code == 200
