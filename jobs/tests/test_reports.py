import csv
import io
import json
from datetime import timedelta

import pytest
from django.utils import timezone

from analytics.models import UsageMinute
from jobs.registry import InvalidInput, Task
from jobs.types.reports import reports

pytestmark = pytest.mark.django_db


@pytest.fixture
def usage():
    now = timezone.now().replace(second=0, microsecond=0)

    def note(**fields):
        UsageMinute.objects.create(
            **{"minute": now - timedelta(minutes=5), "protocol": "http", "consumer": "acme", "target": "quotes",
               "outcome": "ok", "calls": 1} | fields
        )  # fmt: skip

    note(calls=3, bytes_out=100)
    note(minute=now - timedelta(minutes=6), outcome="rate-limited", calls=2)
    note(protocol="mqtt", target="=cmd()", messages_in=7)
    note(consumer="other", calls=100)
    note(minute=now - timedelta(days=2), calls=1000)


def made(period="daily", format_="json", consumer="acme"):
    return reports(Task("j1", consumer, {"type": period, "format": format_}))


def test_a_report_sums_the_consumer_s_own_usage_of_the_period(usage):
    lines = json.loads(made().file.read())["lines"]
    assert [(line["target"], line["calls"], line["refused"]) for line in lines] == [("quotes", 5, 2), ("=cmd()", 1, 0)]
    assert json.loads(made("weekly").file.read())["lines"][0]["calls"] == 1005


def test_a_spreadsheet_runs_no_name_as_a_formula(usage):
    rows = list(csv.DictReader(io.StringIO(made(format_="csv").file.read().decode())))
    assert [row["target"] for row in rows] == ["quotes", "'=cmd()"]


def test_a_pdf_is_one_also_where_there_is_no_usage(usage):
    for consumer in ("acme", "nobody"):
        produced = made(format_="pdf", consumer=consumer)
        content = produced.file.read()
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
        assert produced.file_type == "application/pdf"


@pytest.mark.parametrize("input_", [{}, {"type": "hourly"}, {"type": "daily", "format": "docx"}])
def test_a_report_that_there_is_not_is_said(input_):
    with pytest.raises(InvalidInput):
        reports(Task("j1", "acme", input_))
