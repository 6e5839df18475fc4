"""The import contracts hold, and each of these violations, planted one at a time, breaks one of them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import grimp
import pytest
from importlinter import configuration
from importlinter.application import use_cases

from tests.architecture.imports import ROOT, Import
from tests.architecture.rules import violations

configuration.configure()

PLANTED = [
    Import("gateway.refusals", "gateway.plane"),
    Import("gateway.call", "gateway.handlers.proxy.http"),
    Import("gateway.limits.counters", "redis"),
    Import("gateway.pipeline", "gateway.protocols.http"),
    Import("gateway.limits.settling", "uvicorn"),
    Import("gateway.handlers.mqtt.connection", "gateway.connectors.process"),
    Import("gateway.delivery.order", "asyncio"),
    Import("gateway.wire.event_stream", "nats"),
    Import("gateway.wire.mqtt.session", "time"),
    Import("keys.services", "gateway.authenticate", "_unexpired"),
    Import("keys.models", "rest_framework", "serializers"),
    Import("consumers.services", "django.contrib", "admin"),
    Import("gateway.snapshot.picture", "gateway.identity.rights"),
    Import("gateway.channels.publisher", "gateway.plane"),
    Import("gateway.log.hub", "django.db"),
    Import("events.models", "apimgmt.urls"),
]


@pytest.fixture(scope="module")
def options() -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield use_cases.read_user_options()


@pytest.fixture(scope="module")
def graph(options) -> grimp.ImportGraph:
    packages = options.session_options["root_packages"]
    return grimp.build_graph(*packages, include_external_packages=True, cache_dir=None)


def broken(options, graph: grimp.ImportGraph) -> list[str]:
    """Return the names of the import contracts that the graph breaks."""
    use_cases._register_contract_types(options)
    report = use_cases._build_report(graph, 0, options, (), show_timings=False, verbose=False)
    assert not report.could_not_run
    return [contract.name for contract, check in report.get_contracts_and_checks() if not check.kept]


def test_every_contract_holds(options, graph):
    assert broken(options, graph) == []
    assert violations() == []


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.importer} imports {planted.module}")
def test_a_planted_violation_breaks_a_contract(options, graph, planted):
    changed = deepcopy(graph)
    submodule = f"{planted.module}.{planted.name}"
    target = submodule if submodule in graph.modules else planted.module
    if target not in changed.modules:
        target = target if target.split(".")[0] in ("gateway", "events") else target.split(".")[0]
        changed.add_module(target, is_squashed=True)
    changed.add_import(importer=planted.importer, imported=target, line_number=1, line_contents=f"import {target}")
    assert broken(options, changed) or violations([planted])


def test_a_room_without_a_floor_breaks_the_floors(options, graph):
    changed = deepcopy(graph)
    changed.add_module("gateway.attic")
    assert any("floor" in name for name in broken(options, changed))
