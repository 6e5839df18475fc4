"""The variables of a Zuplo project, which its files write as ``$env(NAME)`` and ``${env.NAME}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from configuration.importers.options import Options, Secret
from configuration.importers.references import Path
from configuration.yaml_documents import Document

VARIABLE = re.compile(r"\$env\((?P<called>[^()]*)\)|\$\{env\.(?P<braced>[^{}]*)\}")


def value_of(document: Document, found: re.Match[str], path: Path, options: Options) -> str:
    """Return the value of a variable, perhaps a secret. Raises DocumentError for one that has none."""
    name = (found["braced"] if found["called"] is None else found["called"]).strip()
    if name not in options.variables:
        raise document.error(f"{found[0]} has no value; give it with --env FILE", *path)
    return options.variables[name]


def resolved(value: Any, document: Document, path: Path, options: Options) -> Any:
    """Return options of a policy with the values of their variables. Raises DocumentError for one that has none."""
    if isinstance(value, Mapping):
        return {name: resolved(member, document, path, options) for name, member in value.items()}
    if isinstance(value, list):
        return [resolved(member, document, path, options) for member in value]
    if not isinstance(value, str):
        return value

    used: list[str] = []

    def variable(found: re.Match[str]) -> str:
        used.append(value_of(document, found, path, options))
        return used[-1]

    text = VARIABLE.sub(variable, value)
    return Secret(text) if any(isinstance(part, Secret) for part in used) else text


def has_secret(value: Any) -> bool:
    """Return whether a value, a member or the name of a member is a secret."""
    if isinstance(value, Mapping):
        return any(map(has_secret, value)) or any(map(has_secret, value.values()))
    return any(map(has_secret, value)) if isinstance(value, list) else isinstance(value, Secret)
