"""What the data plane may ask of this app, by verb."""

from __future__ import annotations

from collections.abc import Mapping

from audit.answering import Answer

ANSWERS: Mapping[str, Answer] = {}
