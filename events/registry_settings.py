"""Levels and modes of the schema registry: Confluent's answers to ``/config`` and ``/mode``."""

from __future__ import annotations

from collections.abc import Mapping

from events import registry
from events.models import Subject
from events.registry import GLOBAL, Compatibility, Mode
from events.registry_question import Question
from events.registry_schemas import No


def config(question: Question, name: str = GLOBAL) -> dict[str, str]:
    level = registry.compatibility_of(name)
    if name != GLOBAL and not question.says("defaultToGlobal") and not _own(name, "compatibility"):
        raise No(40408, f"Subject '{name}' does not have subject-level compatibility configured")
    return {"compatibilityLevel": level.value}


def set_config(question: Question, name: str = GLOBAL) -> dict[str, str]:
    wanted = question.body.get("compatibility") if isinstance(question.body, Mapping) else None
    if not isinstance(wanted, str) or wanted.upper() not in list(Compatibility):
        raise No(42203, f"Invalid compatibility level. Valid values are {', '.join(Compatibility)}")
    registry.require_writable(name)
    registry.configure(name, compatibility=wanted.upper(), by=question.by)
    return {"compatibility": wanted.upper()}


def delete_config(question: Question, name: str = GLOBAL) -> dict[str, str]:
    before = registry.compatibility_of(name)
    if name != GLOBAL and not _own(name, "compatibility"):
        raise No(40408, f"Subject '{name}' does not have subject-level compatibility configured")
    registry.require_writable(name)
    registry.configure(name, compatibility="", by=question.by)
    return {"compatibilityLevel": before.value, "compatibility": before.value}


def mode(question: Question, name: str = GLOBAL) -> dict[str, str]:
    if name != GLOBAL and not question.says("defaultToGlobal") and not _own(name, "mode"):
        raise No(40409, f"Subject '{name}' does not have subject-level mode configured")
    return {"mode": registry.mode_of(name).value}


def set_mode(question: Question, name: str = GLOBAL) -> dict[str, str]:
    wanted = question.body.get("mode") if isinstance(question.body, Mapping) else None
    if not isinstance(wanted, str) or wanted.upper() not in list(Mode):
        raise No(42204, f"Invalid mode. Valid values are {', '.join(Mode)}")
    registry.configure(name, mode=wanted.upper(), by=question.by)
    return {"mode": wanted.upper()}


def delete_mode(question: Question, name: str) -> dict[str, str]:
    before = registry.mode_of(name)
    if not _own(name, "mode"):
        raise No(40409, f"Subject '{name}' does not have subject-level mode configured")
    registry.configure(name, mode="", by=question.by)
    return {"mode": before.value}


def _own(name: str, field: str) -> str:
    return Subject.objects.filter(name=name).values_list(field, flat=True).first() or ""
