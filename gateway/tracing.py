"""W3C Trace Context (Recommendation, 23 November 2021): taken over from callers, and passed on with their work.

The gateway records no spans, so it passes a caller's context on as it is (section 4.3). What cannot be read is dropped,
its ``tracestate`` with it, and a new trace stands in for it (section 4.2).
"""

from __future__ import annotations

from gateway.call import Call
from gateway.wire.header_fields import Headers
from gateway.wire.traceparent import new_traceparent, parse_traceparent, parse_tracestate


def begin(call: Call) -> None:
    """Take over the context of a request that has a ``traceparent``; its headers are then as they are passed on."""
    given = [value.decode("latin-1") for name, value in call.headers if name == b"traceparent"]
    states = [value.decode("latin-1") for name, value in call.headers if name == b"tracestate"]
    call.traceparent = parse_traceparent(given[0].strip()) if len(given) == 1 else None
    call.tracestate = parse_tracestate(",".join(states)) if call.traceparent else None
    call.traceparent = call.traceparent or new_traceparent()
    if given != [call.traceparent] or (states and states != [call.tracestate]):
        call.headers = [header for header in call.headers if header[0] not in (b"traceparent", b"tracestate")]
        call.headers += headers(call.traceparent, call.tracestate)


def start(call: Call) -> None:
    """Begin a trace for a request that came without one."""
    call.traceparent = new_traceparent()
    call.headers = [*call.headers, *headers(call.traceparent, None)]


def headers(traceparent: str, tracestate: str | None) -> Headers:
    """Give the headers that carry a context."""
    found = [(b"traceparent", traceparent.encode())]
    return [*found, (b"tracestate", tracestate.encode())] if tracestate else found


def of_event(call: Call, given: str | None, tracestate: str | None) -> tuple[str | None, str | None]:
    """Give the context of an event: its own where it names one, else that of the call that it came with."""
    if given is None:
        return call.traceparent, call.tracestate
    if (traceparent := parse_traceparent(given)) is not None:
        return traceparent, parse_tracestate(tracestate)
    return (call.traceparent, call.tracestate) if call.traceparent else (new_traceparent(), None)
