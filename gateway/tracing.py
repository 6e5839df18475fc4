"""W3C Trace Context (Recommendation, 23 November 2021), propagated from callers to upstreams and events.

The gateway records no spans, so it forwards a caller's context unchanged (section 4.3). A ``traceparent`` that is
invalid is dropped together with its ``tracestate``, and replaced by a new trace (section 4.2).
"""

from __future__ import annotations

from gateway.call import Call
from gateway.wire.header_fields import Headers
from gateway.wire.traceparent import new_traceparent, parse_traceparent, parse_tracestate


def begin(call: Call) -> None:
    """Set the context of a call that has a ``traceparent``, and rewrite its headers to those that are forwarded."""
    parents = [value.decode("latin-1") for name, value in call.headers if name == b"traceparent"]
    states = [value.decode("latin-1") for name, value in call.headers if name == b"tracestate"]
    call.traceparent = parse_traceparent(parents[0].strip()) if len(parents) == 1 else None
    call.tracestate = parse_tracestate(",".join(states)) if call.traceparent else None
    call.traceparent = call.traceparent or new_traceparent()
    if parents != [call.traceparent] or (states and states != [call.tracestate]):
        call.headers = [header for header in call.headers if header[0] not in (b"traceparent", b"tracestate")]
        call.headers += headers(call.traceparent, call.tracestate)


def start(call: Call) -> None:
    """Start a trace for a call without a ``traceparent``."""
    call.traceparent = new_traceparent()
    call.headers = [*call.headers, *headers(call.traceparent, None)]


def headers(traceparent: str, tracestate: str | None) -> Headers:
    """Return the headers that carry a context."""
    fields = [(b"traceparent", traceparent.encode())]
    return [*fields, (b"tracestate", tracestate.encode())] if tracestate else fields


def of_event(call: Call, own: str | None, tracestate: str | None) -> tuple[str | None, str | None]:
    """Return the context of an event: its own ``traceparent`` if it has one, otherwise that of the call."""
    if own is None:
        return call.traceparent, call.tracestate
    if (traceparent := parse_traceparent(own)) is not None:
        return traceparent, parse_tracestate(tracestate)
    return (call.traceparent, call.tracestate) if call.traceparent else (new_traceparent(), None)
