"""An upstream that answers as models do: OpenAI's chat completions and Anthropic's messages, streamed or whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.concurrency.stopping import stop_tasks
from gateway.tests.http_plane import Asked

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(slots=True)
class Model:
    """Answers with this many words of one token each, and reports the usage."""

    words: int = 10
    shape: str = "openai"
    tells_usage: bool = True
    used: tuple[int, int] | None = None
    """What it says was used, where that is not what it said."""
    pause_s: float = 0.0
    holds_after: int | None = None
    """Stop after so many words until the line is closed."""
    wants: Callable[[bytes], bytes] = field(default=lambda data: data)
    """How what is to be sent is written: in which pieces, with which line ends."""
    parsed: int = 0
    """Words that were written so far, over all calls."""
    hung_up: int = 0
    """Calls whose caller hung up before the end."""
    requests: list[Asked] = field(default_factory=list)

    async def answer(self, requested: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.requests.append(requested)
        body = orjson.loads(requested.body)
        if not body.get("stream"):
            whole = orjson.dumps(self._whole())
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(whole)
            writer.write(head + whole)
            return False
        writer.write(SSE_HEAD)
        gone = asyncio.create_task(reader.read(1))
        try:
            for number, event in enumerate(self._events()):
                if gone.done():
                    raise ConnectionResetError
                if number == self.holds_after:
                    await gone
                    raise ConnectionResetError
                data = self.wants(event)
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                await writer.drain()
                self.parsed += b"word" in event
                await asyncio.sleep(self.pause_s)
            writer.write(b"0\r\n\r\n")
        except (OSError, RuntimeError):  # uvloop raises the latter for a line that is closed
            self.hung_up += 1
            return True
        finally:
            await stop_tasks(gone)
        return False

    @property
    def _used(self) -> tuple[int, int]:
        return self.used or (7, self.words)

    def _whole(self) -> dict[str, Any]:
        tokens_in, tokens_out = self._used
        text = "word" * self.words
        if self.shape == "anthropic":
            reply: dict[str, Any] = {"type": "message", "content": [{"type": "text", "text": text}]}
            usage = {"input_tokens": tokens_in, "output_tokens": tokens_out}
        else:
            reply = {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": text}}]}
            usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
        return {**reply, "usage": usage} if self.tells_usage else reply

    def _events(self) -> list[bytes]:
        return self._of_anthropic() if self.shape == "anthropic" else self._of_openai()

    def _of_openai(self) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": "word"}] * self.words
        reply = [{"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        if self.tells_usage:
            tokens_in, tokens_out = self._used
            reply.append({"choices": [], "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}})
        return [*(b"data: %b\n\n" % orjson.dumps(each) for each in reply), b"data: [DONE]\n\n"]

    def _of_anthropic(self) -> list[bytes]:
        tokens_in, tokens_out = self._used
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word"}}
        reply: list[dict[str, Any]] = [
            {"type": "message_start", "message": {"usage": {"input_tokens": tokens_in, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
            *[delta] * self.words,
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": tokens_out}},
            {"type": "message_stop"},
        ]
        return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in reply]
