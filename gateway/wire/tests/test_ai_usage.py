"""What is read of AI calls: what they ask, what their answers bring, what they say was used."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.ai_usage import MEDIUM_TOKENS, ModelRequest, TokenCounter, Usage, parse_model_request, parse_usage

HELLO = [{"role": "user", "content": "x" * 400}]


def dumped(**document) -> bytes:
    return orjson.dumps(document)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"model": "m", "messages": HELLO, "max_tokens": 50}, ModelRequest(101, 50)),
        ({"model": "m", "messages": HELLO, "max_completion_tokens": 60}, ModelRequest(101, 60)),
        ({"model": "m", "messages": HELLO, "max_tokens": 50, "n": 3}, ModelRequest(101, 150)),
        ({"model": "m", "messages": HELLO}, ModelRequest(101, None)),
        ({"messages": HELLO, "max_tokens": 50}, ModelRequest(101, 50)),
        ({"model": "m", "prompt": "x" * 400, "max_tokens": 7, "stream": True}, ModelRequest(100, 7)),
        ({"model": "m", "prompt": [1, 2, 3], "max_tokens": 7}, ModelRequest(3, 7)),
        ({"model": "m", "input": "x" * 399, "max_output_tokens": 9}, ModelRequest(100, 9)),
        ({"model": "m", "input": "x", "instructions": "y" * 39}, ModelRequest(10, None)),
        ({"model": "m", "system": "s" * 40, "messages": HELLO, "max_tokens": 5}, ModelRequest(111, 5)),
        ({"contents": [{"parts": [{"text": "x" * 400}]}]}, ModelRequest(100, None)),
        (
            {
                "contents": [{"role": "user", "parts": [{"text": "x" * 400}]}],
                "systemInstruction": {"parts": [{"text": "s" * 40}]},
                "generationConfig": {"maxOutputTokens": 20, "candidateCount": 2},
            },
            ModelRequest(111, 40),
        ),
        ({"content": {"parts": [{"text": "x" * 40}]}}, ModelRequest(10, None)),
        ({"requests": [{"content": {"parts": [{"text": "x" * 40}]}}] * 2}, ModelRequest(20, None)),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "a", "data": "A" * 9_999}}]}]}, ModelRequest(1025, None)),
        ({"model": "m", "input": "x" * 40, "system_instruction": "s" * 40}, ModelRequest(20, None)),
        ({"model": "m", "messages": HELLO, "options": {"num_predict": 30}}, ModelRequest(101, 30)),
        ({"model": "m", "messages": HELLO, "options": {"num_predict": -1}}, ModelRequest(101, None)),
        ({"model": "m", "prompt": "x" * 40, "system": "s" * 40, "images": ["A" * 9_999]}, ModelRequest(1044, None)),
        ({"model": "m", "input": ["x" * 40, "y" * 40]}, ModelRequest(20, None)),
        ({"model": "m", "messages": HELLO, "max_tokens": -1}, ModelRequest(101, None)),
        ({"model": "m", "messages": HELLO, "max_tokens": "many"}, ModelRequest(101, None)),
        ({"model": "m", "messages": HELLO, "max_tokens": True}, ModelRequest(101, None)),
        ({"model": "m", "messages": HELLO, "max_tokens": 2**60}, ModelRequest(101, None)),
    ],
)
def test_requests_of_models_are_known_by_their_shape(document, expected):
    assert parse_model_request(orjson.dumps(document)) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"messages": []}',
        b'{"contents": []}',
        b'{"contents": [{"text": "x"}]}',
        b'{"content": "x"}',
        b'{"requests": [{"content": "x"}]}',
        b'{"messages": "hello"}',
        b'{"model": "T"}',
        b'{"input": "x"}',
        b"null",
        b"\xff",
    ],
)
def test_what_is_no_request_of_a_model_is_none(body):
    assert parse_model_request(body) is None


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}},
        {"type": "input_image", "image_url": "https://host.test/" + "A" * 100_000},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}},
    ],
)
def test_an_image_is_not_taken_for_text(part):
    requested = parse_model_request(dumped(model="m", messages=[{"role": "user", "content": [part]}]))
    assert MEDIUM_TOKENS <= requested.tokens_in <= MEDIUM_TOKENS + 20


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}, (5, 7)),
        ({"content": [{"type": "text", "text": "x"}], "usage": {"input_tokens": 5, "output_tokens": 7}}, (5, 7)),
        (
            {
                "content": [],
                "usage": {
                    "input_tokens": 5,
                    "cache_read_input_tokens": 100,
                    "cache_creation_input_tokens": 10,
                    "output_tokens": 7,
                },
            },
            (115, 7),
        ),
        ({"data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}}, (5, None)),
        (
            {
                "candidates": [{"content": {"parts": [{"text": "x"}]}}],
                "usageMetadata": {
                    "promptTokenCount": 30,
                    "cachedContentTokenCount": 20,
                    "toolUsePromptTokenCount": 5,
                    "candidatesTokenCount": 7,
                    "thoughtsTokenCount": 50,
                    "totalTokenCount": 92,
                },
            },
            (35, 57),
        ),
        ({"usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5}, "promptFeedback": {}}, (5, None)),
        ({"candidates": [{"content": {"parts": [{"text": "x" * 40}]}}], "usageMetadata": {}}, (None, 10)),
        (
            {
                "outputs": [],
                "usage": {
                    "total_input_tokens": 3,
                    "total_tool_use_tokens": 2,
                    "total_output_tokens": 4,
                    "total_thought_tokens": 6,
                },
            },
            (5, 10),
        ),
        ({"message": {"content": "x"}, "done": True, "prompt_eval_count": 5, "eval_count": 7}, (5, 7)),
        ({"response": "x", "done": True, "eval_count": 7}, (None, 7)),
        ({"response": "x" * 40, "thinking": "y" * 40, "done": True}, (None, 20)),
        ({"embeddings": [[0.1]], "prompt_eval_count": 5}, (5, None)),
        (
            [
                {"candidates": [{"content": {"parts": [{"text": "x" * 40}]}}]},
                {"usageMetadata": {"promptTokenCount": 9}},
            ],
            (9, 10),
        ),
        ({"choices": [{"message": {"role": "assistant", "content": "x" * 40}}]}, (None, 10)),
        ({"content": [{"type": "text", "text": "x" * 40}]}, (None, 10)),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "x" * 40}]}]}, (None, 10)),
    ],
)
def test_a_whole_answer_says_what_it_used_or_is_estimated(document, expected):
    assert parse_usage(orjson.dumps(document)) == Usage(*expected)


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b'{"symbol":"ACME"}', b'{"usage": 5}', b'{"usage": {"prompt_tokens": "x"}}']
)
def test_other_answers_used_nothing(body):
    assert parse_usage(body) is None


def counted(*events: dict, most: int | None = None) -> TokenCounter:
    counting = TokenCounter(most)
    for event in events:
        counting.add_event(orjson.dumps(event))
    return counting


def chat(text: str | None = None, **delta) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text} if text is not None else delta}]}


def test_deltas_of_openai_count_one_each_or_by_their_bytes():
    assert counted(chat(role="assistant", content=""), chat("Hi"), chat(" you")).tokens_out == 2
    assert counted(chat("x" * 400)).tokens_out == 100
    tool = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"arguments": "x" * 40}}]}
    assert counted(chat(**tool)).tokens_out == 10
    assert counted({"choices": [{"text": "Hi"}, {"text": "Ho"}]}).tokens_out == 2


def test_the_final_usage_of_openai_corrects():
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 42}}
    counting = counted(chat("x" * 400), {**chat("y"), "usage": None}, usage)
    assert (counting.tokens_in, counting.tokens_out) == (9, 42)


def test_a_usage_that_grows_with_the_answer_is_believed_as_it_comes():
    one = {**chat("x" * 40), "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    assert counted(one, chat("y")).tokens_out == 4


def test_events_of_anthropic_count():
    start = {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 25, "output_tokens": 1}}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 40}}
    json = {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "y" * 40}}
    counting = counted(start, {"type": "ping"}, text, json)
    assert (counting.tokens_in, counting.tokens_out) == (25, 21)
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}
    assert not counting.add_event(orjson.dumps(end))
    assert counting.tokens_out == 15


def test_events_of_responses_count():
    text = {"type": "response.output_text.delta", "delta": "x" * 40}
    done = {"type": "response.output_text.done", "text": "x" * 40}
    counting = counted({"type": "response.created", "response": {"usage": None}}, text, done)
    assert counting.tokens_out == 10
    counting.add_event(dumped(type="response.completed", response={"usage": {"input_tokens": 3, "output_tokens": 8}}))
    assert (counting.tokens_in, counting.tokens_out) == (3, 8)


def part(text: str, **usage: int) -> dict:
    chunk = {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}}]}
    return {**chunk, "usageMetadata": usage} if usage else chunk


def test_chunks_of_gemini_count():
    counting = counted(part("x" * 40))
    assert (counting.tokens_in, counting.tokens_out) == (None, 10)
    counting = counted(part("", promptTokenCount=9, thoughtsTokenCount=30), part("x" * 40))
    assert (counting.tokens_in, counting.tokens_out) == (9, 40)
    counting.add_event(orjson.dumps(part("y", promptTokenCount=9, candidatesTokenCount=12, thoughtsTokenCount=30)))
    assert (counting.tokens_in, counting.tokens_out) == (9, 42)
    call = {"functionCall": {"name": "f", "args": {"city": "x" * 27}}}
    assert counted({"candidates": [{"content": {"parts": [call]}}]}).tokens_out == 10
    assert counted({"event_type": "step.delta", "delta": {"type": "text", "text": "x" * 40}}).tokens_out == 10
    done = {
        "event_type": "interaction.completed",
        "interaction": {"usage": {"total_input_tokens": 2, "total_output_tokens": 8}},
    }
    assert (counted(done).tokens_in, counted(done).tokens_out) == (2, 8)


def test_lines_of_ollama_count():
    words = [{"message": {"role": "assistant", "content": word}, "done": False} for word in ("Hi", " you")]
    counting = counted(*words, {"message": {"content": "", "thinking": "x" * 40}, "done": False})
    assert (counting.tokens_in, counting.tokens_out) == (None, 12)
    counting.add_event(dumped(message={"content": ""}, done=True, prompt_eval_count=26, eval_count=3))
    assert (counting.tokens_in, counting.tokens_out) == (26, 3)
    assert counted({"response": "x" * 40, "done": False}).tokens_out == 10
    tool = {"tool_calls": [{"function": {"name": "f", "arguments": {"city": "x" * 27}}}]}
    assert counted({"message": {"content": "", **tool}, "done": False}).tokens_out == 10


def test_bytes_alone_never_count_beyond_the_maximum_that_was_asked():
    assert counted(chat("x" * 4000), most=100).tokens_out == 100
    assert counted(*[chat("x")] * 150, most=100).tokens_out == 150


def test_what_is_no_event_of_a_model_counts_nothing():
    counting = TokenCounter(None)
    for data in (b"[DONE]", b"", b"{", b"[]", b'{"choices": [5]}', b'{"choices": 5}', b'{"type": 5}', b"\xff"):
        assert not counting.add_event(data)
    assert counting.tokens_out == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "text", "usage", "type", "messages", "role", "message", "prompt_tokens",
             "output_tokens", "response", "content", "model", "prompt", "max_tokens", "n", "data", "output", "contents",
             "parts", "requests", "candidates", "usageMetadata", "candidatesTokenCount", "done", "args", "eval_count",
             "options", "num_predict", "images"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(JSON, max_size=5), st.none() | st.integers(1, 100))
def test_nothing_that_an_answer_may_say_is_a_fault(document, most):
    counting = TokenCounter(most)
    for value in document:
        body = orjson.dumps(value)
        counting.add_event(body)
        assert counting.tokens_out >= 0
        usage = parse_usage(body)
        assert usage is None or (usage.tokens_out or 0) >= 0
        requested = parse_model_request(body)
        assert requested is None or (
            requested.tokens_in >= 1 and (requested.tokens_out is None or requested.tokens_out >= 1)
        )
