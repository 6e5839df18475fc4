"""The names of uvicorn that are no public interface and that the server builds on.

uvicorn is pinned to one version; whoever raises the pin learns here which names are gone.
"""

import ast
import inspect
from importlib.metadata import version
from pathlib import Path

import pytest
import uvicorn
from django.conf import settings
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.server.exchange import DirectExchange
from gateway.server.http import BoundedHttp
from gateway.server.server import Server
from gateway.server.timed_http import TimedHttp

OVERRIDDEN = {
    TimedHttp: set(),
    BoundedHttp: {
        "connection_made", "connection_lost", "shutdown", "data_received", "_get_upgrade",
        "_start_asgi_task", "on_response_complete", "on_message_begin", "on_url", "on_header", "on_headers_complete",
        "on_body", "on_message_complete", "eof_received",
    },
    Server: {"startup", "shutdown"},
}  # fmt: skip
"""Hooks that would no longer be called if the class that declares them renamed them."""

BASES = {
    TimedHttp: HttpToolsProtocol,
    BoundedHttp: HttpToolsProtocol,
    Server: uvicorn.Server,
}

OF_PARTS = {
    FlowControl: {"write_paused", "read_paused", "drain", "pause_reading", "resume_reading"},
    ServerState: {"total_requests", "default_headers"},
    RequestResponseCycle: {"response_complete", "response_started", "disconnected", "message_event", "keep_alive"},
}
"""What is used of the objects that uvicorn's protocols hold."""


def test_the_pin_is_exact():
    assert f"uvicorn=={version('uvicorn')}" in (Path(settings.BASE_DIR) / "requirements.in").read_text().split()


@pytest.mark.parametrize("own", BASES, ids=lambda own: own.__name__)
def test_each_hook_that_is_overridden_exists(own):
    base = BASES[own]
    assert {name for name in OVERRIDDEN[own] if not callable(getattr(base, name, None))} == set()
    methods = {name for name, value in vars(own).items() if inspect.isfunction(value) and name != "__init__"}
    assert {name for name in methods if hasattr(base, name)} == OVERRIDDEN[own]


@pytest.mark.parametrize("own", BASES, ids=lambda own: own.__name__)
def test_each_attribute_that_is_used_exists(own):
    used = _attributes_of("self", own) | _attributes_of("super", own)
    assert used - _names_of(own) == set()


@pytest.mark.parametrize("part", OF_PARTS, ids=lambda part: part.__name__)
def test_the_parts_have_what_is_used_of_them(part):
    assert OF_PARTS[part] - _names_of(part) == set()


def test_an_exchange_has_all_that_uvicorn_uses_of_a_cycle():
    used = _attributes_of("cycle", HttpToolsProtocol, (ast.Load, ast.Store))
    assert used >= {"response_complete", "disconnected", "message_event", "body", "more_body", "run_asgi"}
    assert {name for name in used if not hasattr(DirectExchange, name)} == set()


def test_uvicorn_queues_a_cycle_with_its_application():
    assert "self.pipeline.appendleft((self.cycle, app))" in inspect.getsource(httptools_impl)


def _attributes_of(holder, class_, contexts=(ast.Load,)):
    """Return the attributes that a class's source uses of ``self``, ``super()`` or ``….cycle``."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(class_))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, contexts) and _name_of(node.value) == holder:
            found.add(node.attr)
    return found


def _name_of(node):
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Call(func=ast.Name(id=name)):
            return name
    return ""


def _names_of(class_):
    """Return the names that a class and its bases define, in their bodies or by assigning to ``self``."""
    names = set(dir(class_))
    for base in class_.__mro__[:-1]:
        try:
            tree = ast.parse(inspect.getsource(base))
        except (OSError, TypeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _name_of(node.value) == "self":
                names.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    return names
