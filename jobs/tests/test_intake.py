import asyncio
import socket
from dataclasses import replace

import orjson
import pytest
from asgiref.sync import sync_to_async
from kombu.exceptions import OperationalError
from redis.asyncio import Redis

from audit.tests.conftest import running, until
from gateway.link.nats import JOBS_BUCKET, ensure_infrastructure
from jobs import intake, services, tasks
from jobs.models import Job, State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def store(settings, redis_url):
    settings.REDIS_URL = redis_url


@pytest.fixture
def queued(monkeypatch):
    """The jobs that were handed to the queue, in order."""
    found = []
    monkeypatch.setattr(tasks.run, "delay", found.append)
    return found


@pytest.fixture
async def bucket(link):
    _, js = link
    await ensure_infrastructure(js)
    return await js.key_value(JOBS_BUCKET)


async def lay(bucket, document):
    await bucket.put(document["id"], orjson.dumps(document))


async def reported(bucket, job_id):
    return orjson.loads((await bucket.get(job_id)).value)


async def test_what_the_data_plane_accepted_is_queued_once_through_restarts(link, bucket, queued, document):
    await lay(bucket, document(id="a"))
    for job_id in ("b", "c"):
        async with running(intake.run, *link):
            await lay(bucket, document(id=job_id))
            await until(lambda job_id=job_id: Job.objects.filter(id=job_id).aexists())
    assert queued == ["a", "b", "c"]


async def test_the_types_are_told_to_the_data_plane(link, bucket, queued):
    async with running(intake.run, *link):
        await until(lambda: has_type(bucket, "reports"))


async def has_type(bucket, name):
    try:
        return (await reported(bucket, f"type.{name}"))["schema"]["type"] == "object"
    except Exception:
        return False


async def test_changes_of_a_job_reach_who_polls_it(link, bucket, queued, document, job_type):
    job_type("work", lambda task: services.registry.Produced(result=[1]))
    async with running(intake.run, *link):
        await lay(bucket, document())
        await until(lambda: Job.objects.filter(id="j1").aexists())
        await sync_to_async(services.run)("j1")
        await until(lambda: stands(bucket, "j1", State.COMPLETED))
        assert (await reported(bucket, "j1"))["result"] == [1]


async def stands(bucket, job_id, state):
    return (await reported(bucket, job_id))["state"] == state


async def test_a_wish_to_cancel_is_granted(link, bucket, queued, document):
    async with running(intake.run, *link):
        await lay(bucket, document())
        await bucket.put("cancel.j1", b"{}")
        await until(lambda: stands(bucket, "j1", State.CANCELLED))


async def test_a_poisoned_job_fails_and_the_next_one_runs(link, bucket, queued, document):
    async with running(intake.run, *link):
        await lay(bucket, document(id="bad", input={"a": "\x00"}))
        await lay(bucket, document(id="good"))
        await until(lambda: stands(bucket, "bad", State.FAILED))
    assert queued == ["good"]


async def test_a_queue_that_is_away_loses_no_job(link, bucket, document, monkeypatch):
    def away(job_id):
        raise OperationalError("no Redis")

    monkeypatch.setattr(tasks.run, "delay", away)
    async with running(intake.run, *link):
        await lay(bucket, document())
        await until(lambda: Job.objects.filter(id="j1", state=State.QUEUED).aexists())
    found = []
    monkeypatch.setattr(tasks.run, "delay", found.append)
    await sync_to_async(tasks.sweep)()
    assert found == ["j1"]


async def test_an_emptied_nats_takes_new_jobs(nats_server, link, bucket, queued, document):
    async with running(intake.run, *link):
        for number in range(5):
            await lay(bucket, document(id=f"old{number}"))
        await until(lambda: Job.objects.filter(id="old4").aexists())
        await asyncio.to_thread(nats_server.empty)
        await until(lambda: has_type(bucket, "reports"))
        await lay(bucket, document(id="new"))
        await until(lambda: Job.objects.filter(id="new").aexists())
    assert queued[-1] == "new"


async def test_who_sees_the_end_of_a_job_finds_its_place_free(link, bucket, queued, document, job_type, redis_url):
    job_type("work", lambda task: services.registry.Produced(result=[1]))
    async with Redis.from_url(redis_url) as store, running(intake.run, *link):
        await store.zadd("open:{consumer:acme}:open_jobs", {"j1": 1, "j2": 2})
        await lay(bucket, document(places=["open:{consumer:acme}:open_jobs"]))
        await until(lambda: Job.objects.filter(id="j1").aexists())
        await sync_to_async(services.run)("j1")
        await until(lambda: stands(bucket, "j1", State.COMPLETED))
        assert await store.zrange("open:{consumer:acme}:open_jobs", 0, -1) == [b"j2"]


async def test_the_end_of_a_job_is_told_though_its_place_cannot_be_given_back(link, bucket, queued, document, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1"
    async with running(intake.run, *link):
        await lay(bucket, document(places=["open:{consumer:acme}:open_jobs"]))
        await bucket.put("cancel.j1", b"{}")
        await until(lambda: stands(bucket, "j1", State.CANCELLED))


@pytest.fixture
def silent():
    """Listens and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


async def test_a_store_that_hangs_holds_the_ends_of_many_jobs_up_once(
    silent, link, bucket, queued, document, settings, monkeypatch, caplog
):
    settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setattr(intake, "STORE_TIMEOUT_S", 0.1)
    for number in range(20):
        await lay(bucket, document(id=f"j{number}", places=["open:{consumer:acme}:open_jobs"]))
        await bucket.put(f"cancel.j{number}", b"{}")
    async with running(intake.run, *link):
        for number in range(20):
            await until(lambda number=number: stands(bucket, f"j{number}", State.CANCELLED))
    assert sum("not released yet" in record.message for record in caplog.records) == 1


async def test_a_full_bucket_makes_states_late_and_holds_up_nothing_else(link, bucket, queued, document, caplog):
    client, js = link
    config = (await js.stream_info(f"KV_{JOBS_BUCKET}")).config
    async with running(intake.run, client, js):
        await lay(bucket, document(id="a"))
        await until(lambda: Job.objects.filter(id="a").aexists())
        await bucket.put("type.filler", b"x" * 100_000)
        await js.update_stream(replace(config, max_bytes=(await js.stream_info(f"KV_{JOBS_BUCKET}")).state.bytes + 10))
        await sync_to_async(services.cancel)("a")
        await until(lambda: is_logged(caplog, "the bucket of jobs is full"))
        assert (await reported(bucket, "a"))["state"] == "queued"
        await js.purge_stream(f"KV_{JOBS_BUCKET}", subject=f"$KV.{JOBS_BUCKET}.type.filler")
        await until(lambda: has_state(bucket, "a", "cancelled"))


async def is_logged(caplog, text):
    return text in caplog.text


async def has_state(bucket, job_id, state):
    return (await reported(bucket, job_id))["state"] == state
