"""Compatibility levels and modes of the schema registry: ``/config`` and ``/mode`` of Confluent's API."""

from __future__ import annotations

from collections.abc import Mapping

from events import registry
from events.models import Subject
from events.registry import GLOBAL, Compatibility, Mode
from events.registry_request import RegistryRequest
from events.registry_schemas import RegistryError
from gateway.refusals import Reason, Refused


def config(request: RegistryRequest, name: str = GLOBAL) -> dict[str, str]:
    level = registry.compatibility_of(name)
    if name != GLOBAL and not request.flag("defaultToGlobal") and not _own(name, "compatibility"):
        raise RegistryError(40408, f"Subject '{name}' does not have subject-level compatibility configured")
    return {"compatibilityLevel": level.value}


def set_config(request: RegistryRequest, name: str = GLOBAL) -> dict[str, str]:
    level = request.body.get("compatibility") if isinstance(request.body, Mapping) else None
    if not isinstance(level, str) or level.upper() not in list(Compatibility):
        raise RegistryError(42203, f"Invalid compatibility level. Valid values are {', '.join(Compatibility)}")
    registry.require_writable(name)
    registry.configure(name, compatibility=level.upper(), by=request.by)
    return {"compatibility": level.upper()}


def delete_config(request: RegistryRequest, name: str = GLOBAL) -> dict[str, str]:
    before = registry.compatibility_of(name)
    if name != GLOBAL and not _own(name, "compatibility"):
        raise RegistryError(40408, f"Subject '{name}' does not have subject-level compatibility configured")
    registry.require_writable(name)
    registry.configure(name, compatibility="", by=request.by)
    return {"compatibilityLevel": before.value, "compatibility": before.value}


def mode(request: RegistryRequest, name: str = GLOBAL) -> dict[str, str]:
    if name != GLOBAL and not request.flag("defaultToGlobal") and not _own(name, "mode"):
        raise RegistryError(40409, f"Subject '{name}' does not have subject-level mode configured")
    return {"mode": registry.mode_of(name).value}


def set_mode(request: RegistryRequest, name: str = GLOBAL) -> dict[str, str]:
    new_mode = request.body.get("mode") if isinstance(request.body, Mapping) else None
    if not isinstance(new_mode, str) or new_mode.upper() not in list(Mode):
        raise RegistryError(42204, f"Invalid mode. Valid values are {', '.join(Mode)}")
    if new_mode.upper() != Mode.READONLY and registry.mode_of(GLOBAL) is Mode.READONLY:
        raise Refused(Reason.FORBIDDEN, "Operators have made the registry read-only.")
    registry.configure(name, mode=new_mode.upper(), by=request.by)
    return {"mode": new_mode.upper()}


def delete_mode(request: RegistryRequest, name: str) -> dict[str, str]:
    before = registry.mode_of(name)
    if not _own(name, "mode"):
        raise RegistryError(40409, f"Subject '{name}' does not have subject-level mode configured")
    registry.configure(name, mode="", by=request.by)
    return {"mode": before.value}


def _own(name: str, field: str) -> str:
    return Subject.objects.filter(name=name).values_list(field, flat=True).first() or ""
