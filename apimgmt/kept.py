"""The bounds of what is kept: the ``RETENTION_*`` settings. Imports no Django, so that every process can use it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retention:
    """Bounds of everything that is kept; each field is the setting ``RETENTION_<FIELD>``, and 0 means no such bound."""

    usage_minutes_days: int = 2
    """Then usage by the minute becomes usage by the hour; the rows of limits, too."""
    usage_hours_days: int = 35
    """Then usage by the hour becomes usage by the day."""
    usage_days: int = 400
    usage_rows: int = 2_000_000
    limits_days: int = 35
    limits_rows: int = 1_000_000
    connections_days: int = 30
    """Counted from the end of a connection; an open one is kept."""
    connections_rows: int = 1_000_000
    dead_letters_days: int = 30
    dead_letters_rows: int = 10_000
    """Of each channel."""
    dead_letters_bytes: int = 100 * 1024**2
    """Of the events of each channel's dead letters."""
    audit_days: int = 0
    jobs_days: int = 7
    """Counted from the end of a job; one that has not ended is kept."""
    jobs_rows: int = 100_000
    jobs_bytes: int = 10 * 1024**3
    """Of the files that jobs have produced."""
    job_documents_bytes: int = 2 * 1024**3
    """Of the inputs and results in the documents that clients poll."""
    attempts_days: int = 7
    attempts_bytes: int = 1024**3
    usage_log_days: int = 35
    """Of the stream of usage, from which analytics can be rebuilt."""
    usage_log_bytes: int = 2 * 1024**3
    admin_log_days: int = 90
    tokens_days: int = 90
    """Of operators, counted from when they expired or were revoked."""
    database_copies: int = 3
    log_bytes: int = 16 * 1024**2
    """Of the log file of a process, and of the one before it."""
