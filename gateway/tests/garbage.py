"""What a test leaves to the collector of cycles: while it runs, all traffic of the process stands."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterator

import pytest

OURS = ("gateway.", "uvicorn.")
OF_THE_TESTS = "gateway.tests."
Garbage = Callable[[], list[str]]


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    """Collect by hand; what only the collector finds from here on is returned by name, if the product made it.

    What logged records of an earlier test hold on to, or a loop that ended while a connection was closing, is not
    counted. Nor is what the test's own clients leave.
    """
    gc.collect()
    older = {id(one): one for one in gc.get_objects() if _name(one)}
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)

    def found() -> list[str]:
        gc.collect()
        return sorted({name for one in gc.garbage if id(one) not in older and (name := _name(one))})

    yield found
    gc.set_debug(0)
    gc.garbage.clear()
    older.clear()
    gc.collect()
    gc.enable()


def _name(found: object) -> str:
    """Return the name of an object that the product made, or else an empty string."""
    # Not by isinstance, which evaluates lazy objects of Django.
    if issubclass(type(found), types.CoroutineType | types.GeneratorType):
        code = getattr(found, "cr_code", None) or found.gi_code
        is_ours = "/gateway/" in code.co_filename and "/tests/" not in code.co_filename
        return code.co_qualname if is_ours else ""
    kind = type(found)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if name.startswith(OURS) and ".tests." not in name else ""
