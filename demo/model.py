"""The demo's language model: says the same to everybody, a word a token, in the shape of OpenAI's chat completions."""

from __future__ import annotations

import asyncio
from itertools import count, cycle, islice
from typing import Any

import orjson

WORD_S = 0.05
SAYING = "A limit that counts an answer when it is over has no say in how long it gets. This one goes on and on."
WORDS_MAX = 1000
"""The most words of an answer, and its length where a request names none."""
EVENT_STREAM = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]

_numbers = count(1)


async def complete(body: bytes, send: Any) -> None:
    """Answer one request over ASGI, streamed if it asks for that; anything but a chat request is refused."""
    try:
        request = orjson.loads(body)
        prompt = "".join(str(message["content"]) for message in request["messages"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        await _json(send, 400, {"error": {"type": "invalid_request_error", "message": "Send `messages`."}})
        return
    wanted = request.get("max_tokens")
    most = min(wanted, WORDS_MAX) if isinstance(wanted, int) and wanted > 0 else WORDS_MAX
    usage = {
        "prompt_tokens": -(-len(prompt) // 4),
        "completion_tokens": most,
        "total_tokens": -(-len(prompt) // 4) + most,
    }
    words = [f"{word} " for word in islice(cycle(SAYING.split()), most)]
    made = {"id": f"chatcmpl-{next(_numbers)}", "model": "demo"}
    if not request.get("stream"):
        message = {"index": 0, "message": {"role": "assistant", "content": "".join(words)}, "finish_reason": "length"}
        await _json(send, 200, {**made, "object": "chat.completion", "choices": [message], "usage": usage})
        return
    await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
    for word in words:
        await _event(
            send, {**made, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}
        )
        await asyncio.sleep(WORD_S)
    await _event(send, {**made, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _event(send: Any, fields: dict[str, Any]) -> None:
    await send({"type": "http.response.body", "body": b"data: %b\n\n" % orjson.dumps(fields), "more_body": True})


async def _json(send: Any, status: int, fields: dict[str, Any]) -> None:
    body = orjson.dumps(fields)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
