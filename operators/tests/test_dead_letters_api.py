import json

from audit import bus
from audit.models import Change
from events import letter_jobs
from events.models import DeadLetter
from events.services import create_channel
from operators.tests.api_cases import dead_letter, problem


def test_dead_letters_are_filtered_redriven_and_discarded(api, monkeypatch):
    create_channel(address="trades", by="test")
    first, second = dead_letter(), dead_letter(sequence=2, channel="other", address="other")
    stored = []
    monkeypatch.setattr(
        bus, "store", lambda subject, data, headers: stored.append((subject.rpartition(".")[2], json.loads(data)))
    )
    (found,) = api.get("/api/v1/dead-letters/?channel=trades&reason=invalid-payload").json()["results"]
    assert (found["id"], "event" in found) == (first.id, False)
    assert api.get(f"/api/v1/dead-letters/{first.id}").json() == found | {"event": {"data": {"value": "warm"}}}
    assert api.post(f"/api/v1/dead-letters/{first.id}/redrive/").status_code == 204
    assert stored == [("trades", {"value": "warm"})]
    problem(api.post(f"/api/v1/dead-letters/{second.id}/redrive"), 400, "invalid-request")
    assert api.delete(f"/api/v1/dead-letters/{second.id}").status_code == 204
    assert not DeadLetter.objects.exists()


def test_dead_letters_are_redriven_and_discarded_by_their_filters(api, monkeypatch):
    create_channel(address="trades", schema={"type": "object"}, by="test")
    for number in range(3):
        dead_letter(sequence=number, event={"data": {"n": number}})
    refused = dead_letter(sequence=3, event={"data": 5})
    other = dead_letter(sequence=4, channel="other", address="other", event={"data": {}})
    stored = []
    monkeypatch.setattr(bus, "store_all", stored.extend)
    problem(api.post("/api/v1/dead-letters/redrive?colour=red"), 400, "invalid-request")
    problem(api.post("/api/v1/dead-letters/discard?colour=red"), 400, "invalid-request")
    problem(
        api.post("/api/v1/dead-letters/redrive?channel=trades", {"how": "now"}, format="json"), 400, "invalid-request"
    )
    job = run(api, api.post("/api/v1/dead-letters/redrive?channel=trades"))
    assert (job["state"], job["total"], job["done"], job["failed"]) == ("completed", 4, 3, 1)
    assert [json.loads(data) for _, data, _ in stored] == [{"n": 0}, {"n": 1}, {"n": 2}]
    (kept,) = job["refused"]
    assert kept["id"] == refused.id
    assert "schema still rejects it" in kept["detail"]
    job = run(api, api.post("/api/v1/dead-letters/redrive?channel=trades", {"as_is": True}, format="json"))
    assert (job["done"], job["failed"], job["as_is"]) == (1, 0, True)
    assert DeadLetter.objects.get() == other
    assert run(api, api.post("/api/v1/dead-letters/discard/?channel=none"))["total"] == 0
    assert run(api, api.post("/api/v1/dead-letters/discard?all=true"))["done"] == 1
    assert Change.objects.filter(kind="dead-letters").count() == 4
    assert not Change.objects.filter(kind="dead-letter").exists()


def run(api, answer):
    """Run the job that was accepted and return it."""
    assert answer.status_code == 202
    assert answer.json()["state"] == "queued"
    letter_jobs.run(answer.json()["id"])
    return api.get(answer["location"]).json()


def test_jobs_of_dead_letters_are_listed_and_cancelled(api):
    dead_letter()
    job = api.post("/api/v1/dead-letters/discard?channel=trades").json()
    assert [one["id"] for one in api.get("/api/v1/dead-letter-jobs/?state=queued").json()["results"]] == [job["id"]]
    assert api.delete(f"/api/v1/dead-letter-jobs/{job['id']}").status_code == 204
    letter_jobs.run(job["id"])
    job = api.get(f"/api/v1/dead-letter-jobs/{job['id']}").json()
    assert (job["state"], job["done"], job["ended_at"] is None) == ("cancelled", 0, False)
    assert DeadLetter.objects.exists()
    problem(api.get("/api/v1/dead-letter-jobs/?state=banana"), 400, "invalid-request")


def test_an_unavailable_engine_is_a_503_with_retry_after(api, monkeypatch):
    def away(*args, **kwargs):
        raise bus.Unavailable("no answer")

    monkeypatch.setattr(bus, "store", away)
    create_channel(address="trades", by="test")
    letter = dead_letter()
    answer = api.post(f"/api/v1/dead-letters/{letter.id}/redrive")
    assert problem(answer, 503, "overloaded")["retry_after_s"] == 1.0
    assert answer["retry-after"] == "1"
    assert DeadLetter.objects.exists()


def test_a_list_reads_no_event_however_many_there_are(api, django_assert_max_num_queries):
    for number in range(20):
        dead_letter(sequence=number)
    with django_assert_max_num_queries(6) as queries:
        assert len(api.get("/api/v1/dead-letters/").json()["results"]) == 20
    assert not [one["sql"] for one in queries if '"event",' in one["sql"]]
