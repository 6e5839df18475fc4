"""The registry of job types: Python functions, registered with a decorator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.files.base import File


@dataclass(frozen=True, slots=True)
class Produced:
    """The result of a job: a JSON value for ``result``, or a file for ``downloadUrl``."""

    result: Any = None
    file: File[bytes] | None = None
    file_name: str = ""
    file_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Task:
    """The argument of a job's function."""

    id: str
    consumer: str
    input: Mapping[str, Any]
    progress: Callable[[float, str], None] = field(default=lambda share, message: None)
    """Report progress (0 to 1) with a message. Raises :class:`Cancelled` once the job was cancelled."""


class Cancelled(Exception):
    """The client cancelled the job, or another worker claimed it; the function must stop."""


class InvalidInput(ValueError):
    """The input is not valid for the job type; the text tells the client what to change."""


Run = Callable[[Task], Produced]


@dataclass(frozen=True, slots=True)
class JobType:
    """A type of job that clients can submit."""

    name: str
    title: str
    run: Run
    schema: Mapping[str, Any]
    """JSON Schema of the input; input that does not match is refused with 422 at submission."""


_types: dict[str, JobType] = {}


def job_type(name: str, *, title: str, schema: Mapping[str, Any]) -> Callable[[Run], Run]:
    """Register a function as a job type."""

    def register(run: Run) -> Run:
        _types[name] = JobType(name, title, run, schema)
        return run

    return register


def find(name: str) -> JobType | None:
    """Return the job type of that name, or None."""
    return _types.get(name)


def all_types() -> list[JobType]:
    """Return all job types, by name."""
    return sorted(_types.values(), key=lambda type_: type_.name)
