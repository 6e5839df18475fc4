"""An upstream that answers as models do, streamed or whole: those of OpenAI, Anthropic, Gemini and Ollama."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.concurrency.stopping import stop_tasks
from gateway.tests.http_plane import Asked

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
SSE = b"text/event-stream; charset=utf-8"
TYPES = {
    "ollama": b"application/x-ndjson",
    "ollama-text": b"application/x-ndjson",
    "gemini-array": b"application/json; charset=UTF-8",
}


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
        if not self._is_streamed(requested, body):
            whole = orjson.dumps(self._whole())
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(whole)
            writer.write(head + whole)
            return False
        writer.write(HEAD % TYPES.get(self.shape, SSE))
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

    def _is_streamed(self, requested: Asked, body: dict[str, Any]) -> bool:
        if self.shape.startswith("gemini"):
            return ":streamGenerateContent" in requested.target
        return bool(body.get("stream", self.shape.startswith("ollama")))

    @property
    def _used(self) -> tuple[int, int]:
        return self.used or (7, self.words)

    def _whole(self) -> dict[str, Any]:
        tokens_in, tokens_out = self._used
        text = "word" * self.words
        if self.shape.startswith("gemini"):
            return self._chunk_of_gemini(text, self._used)
        if self.shape.startswith("ollama"):
            return self._line_of_ollama(text, is_last=True)
        if self.shape == "anthropic":
            reply: dict[str, Any] = {"type": "message", "content": [{"type": "text", "text": text}]}
            usage = {"input_tokens": tokens_in, "output_tokens": tokens_out}
        else:
            reply = {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": text}}]}
            usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
        return {**reply, "usage": usage} if self.tells_usage else reply

    def _events(self) -> list[bytes]:
        shapes = {
            "anthropic": self._of_anthropic, "gemini": self._of_gemini, "gemini-array": self._of_gemini_array,
            "ollama": self._of_ollama, "ollama-text": self._of_ollama,
        }  # fmt: skip
        return shapes.get(self.shape, self._of_openai)()

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

    def _of_gemini(self) -> list[bytes]:
        return [b"data: %b\r\n\r\n" % orjson.dumps(each) for each in self._chunks_of_gemini()]

    def _of_gemini_array(self) -> list[bytes]:
        first, *others = map(orjson.dumps, self._chunks_of_gemini())
        return [b"[" + first, *(b",\r\n" + each for each in others), b"]\r\n"]

    def _chunks_of_gemini(self) -> list[dict[str, Any]]:
        """Report the usage so far with each chunk, as Gemini does; of the output, what a model thought is a part."""
        tokens_in, tokens_out = self._used
        so_far = [self._chunk_of_gemini("word", (tokens_in, number + 1)) for number in range(self.words)]
        return [*so_far[:-1], self._chunk_of_gemini("word", (tokens_in, tokens_out))]

    def _chunk_of_gemini(self, text: str, used: tuple[int, int]) -> dict[str, Any]:
        tokens_in, tokens_out = used
        content = {"role": "model", "parts": [{"text": text}]}
        usage = {
            "promptTokenCount": tokens_in - 2, "toolUsePromptTokenCount": 2, "cachedContentTokenCount": 1,
            "candidatesTokenCount": tokens_out - 1, "thoughtsTokenCount": 1, "totalTokenCount": tokens_in + tokens_out,
        }  # fmt: skip
        reply = {"candidates": [{"content": content, "index": 0}], "modelVersion": "m"}
        return {**reply, "usageMetadata": usage} if self.tells_usage else reply

    def _of_ollama(self) -> list[bytes]:
        lines = [self._line_of_ollama("word", is_last=False)] * self.words
        return [orjson.dumps(line) + b"\n" for line in (*lines, self._line_of_ollama("", is_last=True))]

    def _line_of_ollama(self, text: str, *, is_last: bool) -> dict[str, Any]:
        tokens_in, tokens_out = self._used
        message: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        line = {"model": "m", **({"response": text} if self.shape == "ollama-text" else message), "done": is_last}
        usage = {"prompt_eval_count": tokens_in, "eval_count": tokens_out} if is_last and self.tells_usage else {}
        return {**line, **usage}
