"""Gemini and Ollama under limits of tokens, streamed and whole; and refusals as the libraries of each API print them."""

from __future__ import annotations

import orjson
import pytest

from gateway.handlers.proxy.tests.test_http_ai_calls import left, serving, tokens
from gateway.tests.ai_upstream import Model
from gateway.tests.http_plane import caller_of, echo, eventually, route, running, upstream_that
from gateway.tests.policed import policy

JSON = "content-type: application/json"
PATHS = {
    "gemini": "/ai/models/m:streamGenerateContent?alt=sse",
    "gemini-array": "/ai/models/m:streamGenerateContent",
    "ollama": "/ai/api/chat",
    "ollama-text": "/ai/api/generate",
}
SHAPES = pytest.mark.parametrize("shape", PATHS)


def asked(shape: str, most: int | None = None, *, stream: bool = True) -> bytes:
    """Return a prompt that is estimated at ten tokens."""
    text = "x" * 40
    if shape.startswith("gemini"):
        body = {"contents": [{"parts": [{"text": text}]}]}
        return orjson.dumps(body if most is None else body | {"generationConfig": {"maxOutputTokens": most}})
    prompt = {"messages": [{"role": "user", "content": text[:36]}]} if shape == "ollama" else {"prompt": text}
    settings = {} if most is None else {"options": {"num_predict": most}}
    return orjson.dumps({"model": "m", **prompt, **settings, **({} if stream else {"stream": False})})


async def ask(plane, path: str, body: bytes, *lines: str):
    async with caller_of(plane) as caller:
        return await caller.ask("POST", path, *(lines or (JSON,)), body=body)


@SHAPES
@pytest.mark.parametrize("is_direct", [True, False])
async def test_a_stream_passes_as_it_is_and_is_charged_what_it_reports(tmp_path, shape, is_direct):
    model = Model(words=10, shape=shape, used=(25, 12))
    limits = [tokens("tokens_in", 1000), tokens("tokens_out", 1000)]
    async with serving(tmp_path, model, *limits, is_direct=is_direct) as plane:
        answer = await ask(plane, PATHS[shape], asked(shape, 100))
        assert (answer.status, answer.body) == (200, b"".join(model._events()))
        assert (left(plane, "tokens_in"), left(plane, "tokens_out")) == (975, 988)


@SHAPES
async def test_a_whole_answer_is_charged_what_it_reports(tmp_path, shape):
    model = Model(words=10, shape=shape, used=(25, 12))
    path = PATHS[shape].partition("?")[0].replace(":streamGenerate", ":generate")
    async with serving(tmp_path, model, tokens("tokens_in", 1000), tokens("tokens_out", 1000)) as plane:
        answer = await ask(plane, path, asked(shape, 100, stream=False))
        assert answer.body == orjson.dumps(model._whole())
        assert (left(plane, "tokens_in"), left(plane, "tokens_out")) == (975, 988)


@SHAPES
async def test_without_a_report_the_estimate_is_charged(tmp_path, shape):
    model = Model(words=10, shape=shape, tells_usage=False)
    async with serving(tmp_path, model, tokens("tokens_in", 1000), tokens("tokens_out", 1000)) as plane:
        await ask(plane, PATHS[shape], asked(shape, 100))
        assert (left(plane, "tokens_in"), left(plane, "tokens_out")) == (990, 990)


@SHAPES
async def test_what_is_asked_is_reserved_and_refused_in_the_shape_of_the_api(tmp_path, shape):
    model = Model(shape=shape)
    async with serving(tmp_path, model, tokens("tokens_out", 100)) as plane:
        refused = await ask(plane, PATHS[shape], asked(shape, 101))
        document = orjson.loads(refused.body)
        assert (refused.status, document["tokens_max"]) == (429, 100)
        error = document["error"]
        assert error == document["detail"] if "ollama" in shape else error["status"] == "RESOURCE_EXHAUSTED"
        assert not model.requests


@SHAPES
async def test_a_stream_that_meets_its_limit_ends_as_its_library_reads_it(tmp_path, shape):
    model = Model(words=5_000, shape=shape, pause_s=0.001)
    async with serving(tmp_path, model, tokens("tokens_out", 50)) as plane, caller_of(plane) as caller:
        answer = await caller.ask("POST", PATHS[shape], JSON, body=asked(shape))
        assert 48 <= answer.body.count(b'"word"') <= 50
        last = last_of(shape, answer.body)
        assert last["reason"] == "rate-limited"
        assert last["error"] == last["detail"] if "ollama" in shape else last["error"]["code"] == 429
        await eventually(lambda: model.hung_up == 1)
        assert left(plane, "tokens_out") <= 1
        again = await caller.ask("POST", PATHS[shape], JSON, body=asked(shape))
        assert again.status == 429, "the connection is whole, and can be used again"


@SHAPES
async def test_a_stream_whose_first_unit_exceeds_the_limit_is_the_error_alone(tmp_path, shape):
    model = Model(words=10, shape=shape, tells_usage=False, wants=lambda data: data.replace(b"word", b"w" * 400))
    async with serving(tmp_path, model, tokens("tokens_out", 50)) as plane:
        answer = await ask(plane, PATHS[shape], asked(shape))
        assert (answer.status, answer.body.count(b"www")) == (200, 0)
        assert last_of(shape, answer.body)["reason"] == "rate-limited"


def last_of(shape: str, body: bytes) -> dict:
    """Return the last unit of a stream; the whole of it must be readable."""
    if shape == "gemini-array":
        return orjson.loads(body)[-1]
    if shape == "gemini":
        *_, last, end = body.replace(b"\r\n", b"\n").split(b"\n\n")
        assert (last[:15], end) == (b'data: {"error":', b""), "Google's library knows an error by its first member"
        return orjson.loads(last[6:])
    return [orjson.loads(line) for line in body.splitlines()][-1]


@SHAPES
async def test_a_caller_that_leaves_pays_for_what_came(tmp_path, shape):
    model = Model(words=100, shape=shape, holds_after=20)
    limits = [tokens("tokens_in", 1000), tokens("tokens_out", 1000)]
    async with serving(tmp_path, model, *limits) as plane, caller_of(plane) as caller:
        body = asked(shape, 500)
        caller.send(caller.head("POST", PATHS[shape], JSON, f"content-length: {len(body)}") + body)
        await caller.answer_head()
        for _ in range(20):
            await caller.reader.readuntil(b"word")
        assert left(plane, "tokens_out") == 500
        caller.abort()
        await eventually(lambda: model.hung_up == 1)
        await eventually(lambda: left(plane, "tokens_out") == 980)
        assert left(plane, "tokens_in") == (993 if "gemini" in shape else 990)


async def test_a_request_by_another_type_is_counted_where_the_api_takes_it(tmp_path):
    """As ``curl -d`` sends it to Ollama."""
    async with serving(tmp_path, Model(shape="ollama"), tokens("tokens_out", 100)) as plane:
        form = "content-type: application/x-www-form-urlencoded"
        assert (await ask(plane, "/ai/api/chat", asked("ollama", 101), form)).status == 429


@pytest.mark.parametrize("path", ["/ai/v1/messages/count_tokens", "/ai/models/m:countTokens"])
async def test_counting_tokens_uses_none(tmp_path, path):
    async with upstream_that(echo) as upstream:
        routes = [route("ai", "/ai/{rest...}", upstream.url)]
        async with running(tmp_path, routes, limits=[tokens("tokens_in", 5), tokens("tokens_out", 5)]) as plane:
            assert (await ask(plane, path, asked("ollama", 100))).status == 200
            assert (left(plane, "tokens_in"), left(plane, "tokens_out")) == (5, 5)


# Refusals

OPENAI, ANTHROPIC = "/ai/v1/chat/completions", "/ai/v1/messages"
GEMINI, OLLAMA = "/ai/v1beta/models/m:generateContent", "/ai/api/chat"


@pytest.fixture
async def plane(tmp_path):
    limits = [{"metric": "requests", "amount": 1, "per": 3600}]
    needs_name = policy("validate", schema={"type": "object", "required": ["name"]})
    async with upstream_that(echo) as upstream:
        routes = [
            route("ai", "/ai/{rest...}", upstream.url, policies=[needs_name]),
            route("named", "/named", f"{upstream.url}/v1/chat/completions"),
            route("other", "/other", upstream.url),
        ]
        async with running(tmp_path, routes, limits=limits) as plane:
            yield plane


async def refused(plane, path: str, *lines: str, key=""):
    async with caller_of(plane) as caller:
        answer = await caller.ask("POST", path, JSON, *lines, body=b"{}", key=key)
    return answer, orjson.loads(answer.body)


async def test_openais_libraries_find_the_message(plane):
    answer, document = await refused(plane, OPENAI, key=None)
    assert (answer.status, answer.header("content-type")) == (401, "application/problem+json")
    assert document["type"] == "/docs/refusals#unauthenticated"
    error = {"message": document["detail"], "type": "authentication_error", "param": None, "code": "unauthenticated"}
    assert document["error"] == error
    _, invalid = await refused(plane, OPENAI)
    assert (invalid["error"]["type"], invalid["error"]["code"]) == ("invalid_request_error", "invalid-payload")
    answer, limited = await refused(plane, OPENAI)
    assert (answer.status, limited["error"]["type"]) == (429, "rate_limit_error")
    assert answer.header("retry-after")


async def test_anthropics_libraries_find_the_message(plane):
    answer, document = await refused(plane, ANTHROPIC, key=None)
    assert (answer.status, answer.header("content-type")) == (401, "application/json")
    assert (document["type"], document["reason"]) == ("error", "unauthenticated")
    assert document["error"] == {"type": "authentication_error", "message": document["detail"]}
    assert "request_id" in document
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    _, traced = await refused(plane, ANTHROPIC, f"traceparent: 00-{trace}-00f067aa0ba902b7-01", key=None)
    assert traced["request_id"] == trace


async def test_googles_library_finds_status_and_message(plane):
    _, document = await refused(plane, GEMINI, key=None)
    assert document["error"] == {"code": 401, "message": document["detail"], "status": "UNAUTHENTICATED"}
    assert "status" not in document
    await refused(plane, GEMINI)
    _, limited = await refused(plane, GEMINI)
    assert limited["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert limited["error"]["details"][0]["retryDelay"].endswith("s")


async def test_ollamas_libraries_find_the_message(plane):
    answer, document = await refused(plane, OLLAMA, key=None)
    assert (answer.header("content-type"), document["error"]) == ("application/json", document["detail"])


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("/other", "anthropic-version: 2023-06-01", dict),
        ("/other", "user-agent: ollama-python/0.6.3 (x86_64)", str),
        ("/other", "x-stainless-lang: python", dict),
        ("/nowhere/chat/completions", "x-a: 1", dict),
        ("/named", "x-a: 1", dict),
        ("/other", "x-a: 1", None),
        ("/v1/me", "x-stainless-lang: python", None),
        (OLLAMA, "accept: application/problem+json", None),
        (ANTHROPIC, "accept: text/plain, Application/Problem+JSON; q=1", None),
    ],
)
async def test_the_library_or_the_path_decides_on_the_shape(plane, path, line, expected):
    method = "GET" if path == "/v1/me" else "POST"
    async with caller_of(plane) as caller:
        answer = await caller.ask(method, path, line, key=None)
    document = orjson.loads(answer.body)
    assert answer.status in (401, 404)
    if expected is None:
        assert "error" not in document
        assert answer.header("content-type") == "application/problem+json"
    else:
        assert isinstance(document["error"], expected)
