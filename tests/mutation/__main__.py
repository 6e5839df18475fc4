"""Runs the unit tests of each pure core against its mutants, and compares the survivors with the justified ones.

Each mutant is tested in a process forked from one that has imported all but it and its users: no file is changed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from tests.mutation.changes import Mutant, lies_in, mutants

ROOT = Path(__file__).parents[2]
JUSTIFIED = Path(__file__).with_name("survivors.txt")
MODULES = {
    "gateway.identity.rights": "gateway/identity/tests/test_rights.py",
    "gateway.snapshot.scopes": "gateway/identity/tests/test_rights.py",
    "gateway.log.catch_up": "gateway/log/tests/test_catch_up.py",
    "gateway.limits.open_slots": "gateway/limits/tests/test_open_slots.py",
    "gateway.delivery.order": "gateway/delivery/tests/test_delivery_order.py",
    "gateway.credentials.api_keys": "gateway/credentials/tests/test_credentials.py",
    "gateway.snapshot.feed": "gateway/snapshot/tests/test_feed_reads.py",
    "gateway.limits.counters": " ".join(
        f"gateway/limits/tests/test_{subject}.py"
        for subject in ("counter_levels", "counter_leases", "counter_paces", "counter_alone", "counters", "reservation")
    ),
}
"""The pure cores, and the tests of each: the fastest first, as the first that fails ends a mutant."""
OPTIONS = (
    *("-q", "-x", "-c", os.devnull, "--rootdir", str(ROOT), "--noconftest", "-W", "ignore", "-o", "asyncio_mode=auto"),
    *("-p", "no:django", "-p", "no:cacheprovider", "-p", "no:xdist"),
)
TIMES_LONGER = 8
"""A mutant that runs so many times longer than the unchanged module is ended, and counts as killed."""
LEAST_S = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """The tests of one mutant, in a process of their own."""

    mutant: Mutant
    process: int
    ends_at: float


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from other source than its file's."""

    def __init__(self, name: str, source: str) -> None:
        self._name = name
        self._source = source

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._name, "exec"), module.__dict__)


def import_all_but(module: str, tests: str) -> None:
    """Import what the tests import, and forget the module and all that imports it: only that is imported each time."""
    test_modules = [path.removesuffix(".py").replace("/", ".") for path in tests.split()]
    for name in (module, *test_modules):
        importlib.import_module(name)
    imported = {name: _imports(loaded) for name, loaded in sys.modules.items() if name != "__main__"}
    forgotten, found = {module}, {module, *test_modules}
    while found:
        forgotten |= found
        found = {name for name, names in imported.items() if names & found} - forgotten
    for name in forgotten & {*sys.modules}:
        del sys.modules[name]
        package, _, last = name.rpartition(".")
        if package in sys.modules:
            delattr(sys.modules[package], last)


def _imports(module: ModuleType) -> set[str]:
    path = getattr(module, "__file__", None) or ""
    if not path.startswith(str(ROOT)) or ".venv" in path or not path.endswith(".py"):
        return set()
    names = set[str]()
    for node in ast.walk(ast.parse(Path(path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def start(module: str, tests: str, mutant: Mutant, within_s: float) -> Running:
    process = os.fork()
    if process:
        return Running(mutant, process, time.monotonic() + within_s)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    code = 1
    with contextlib.suppress(BaseException):
        # The examples are the same each time: whether a mutant survives must not depend on luck.
        hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
        hypothesis.settings.load_profile("mutants")
        sys.meta_path.insert(0, Mutated(module, mutant.source))
        code = int(pytest.main([*OPTIONS, *tests.split()]))
    os._exit(code)


def survives(running: Running) -> bool | None:
    """Return whether the tests passed; None while they run."""
    ended, status = os.waitpid(running.process, os.WNOHANG)
    if ended:
        return status == 0
    if time.monotonic() < running.ends_at:
        return None
    os.kill(running.process, signal.SIGKILL)
    os.waitpid(running.process, 0)
    return False


def source_of(module: str) -> str:
    return (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()


def survivors(module: str, chosen: Sequence[Mutant], jobs: int) -> Iterator[str]:
    """Yield the names of the mutants that the tests do not notice. Raises SystemExit where they fail without one."""
    tests = MODULES[module]
    import_all_but(module, tests)
    began_at = time.monotonic()
    unchanged = start(module, tests, Mutant("", source_of(module)), 300)
    while (passes := survives(unchanged)) is None:
        time.sleep(0.01)
    if not passes:
        raise SystemExit(f"{tests}: failed without any change")
    within_s = max(LEAST_S, TIMES_LONGER * jobs * (time.monotonic() - began_at))
    waiting, running = [*chosen][::-1], list[Running]()
    sys.stdout.write(f"{module}: {len(waiting)} mutants\n")
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(start(module, tests, waiting.pop(), within_s))
        for one in [*running]:
            if (survived := survives(one)) is not None:
                running.remove(one)
                if survived:
                    yield f"{module} {one.mutant.name}"
        time.sleep(0.005)


def justified() -> dict[str, str]:
    """Read why each listed mutant may survive, by its name."""
    lines = (line for line in JUSTIFIED.read_text().splitlines() if line and not line.startswith("#"))
    return {name.strip(): reason.strip() for name, _, reason in (line.partition("  # ") for line in lines)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="script/mutants", description=__doc__)
    parser.add_argument("--module", action="append", choices=sorted(MODULES), help="only this one; may be repeated")
    parser.add_argument("--function", action="append", default=[], help="only this one, or class; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants tested at once")
    options = parser.parse_args(arguments)
    chosen = {
        module: [mutant for mutant in mutants(source_of(module)) if lies_in(mutant.name, options.function)]
        for module in options.module or MODULES
    }
    if not any(chosen.values()):
        parser.error("nothing to change in " + ", ".join(options.function))
    reasons = justified()
    failures = [f"justified without a reason: {name}" for name, reason in reasons.items() if not reason]
    for module in [module for module in chosen if chosen[module]]:
        found = {*survivors(module, chosen[module], options.jobs)}
        listed = {name for name in reasons if name.startswith(f"{module} ")}
        listed = {name for name in listed if lies_in(name.removeprefix(f"{module} "), options.function)}
        failures += [f"survived: {name}" for name in sorted(found - listed)]
        failures += [f"justified, but killed or gone: {name}" for name in sorted(listed - found)]
    sys.stdout.writelines(f"{failure}\n" for failure in failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
