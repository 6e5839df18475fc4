"""The types of job there are: Python functions, registered by a decorator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.files.base import File


@dataclass(frozen=True, slots=True)
class Produced:
    """What a job came to: a JSON value for ``result``, or a file for ``downloadUrl``."""

    result: Any = None
    file: File[bytes] | None = None
    file_name: str = ""
    file_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Task:
    """What a job's function is given."""

    id: str
    consumer: str
    input: Mapping[str, Any]
    progress: Callable[[float, str], None] = field(default=lambda share, message: None)
    """Report progress (0 to 1) and what is being done. Raises :class:`Cancelled` once the job was cancelled."""


class Cancelled(Exception):
    """The client cancelled the job, or another worker has taken it over: stop at once."""


class InvalidInput(ValueError):
    """The job's input does not fit its type; the text tells the client what to mend."""


Run = Callable[[Task], Produced]


@dataclass(frozen=True, slots=True)
class JobType:
    """A kind of work that clients may ask for."""

    name: str
    title: str
    run: Run
    schema: Mapping[str, Any]
    """JSON Schema of its input; refused at submission with 422 where it does not fit."""


_types: dict[str, JobType] = {}


def job_type(name: str, *, title: str, schema: Mapping[str, Any]) -> Callable[[Run], Run]:
    """Register a function as a type of job."""

    def register(run: Run) -> Run:
        _types[name] = JobType(name, title, run, schema)
        return run

    return register


def find(name: str) -> JobType | None:
    """Give a type of job by its name."""
    return _types.get(name)


def all_types() -> list[JobType]:
    """Give all types of job."""
    return sorted(_types.values(), key=lambda type_: type_.name)
