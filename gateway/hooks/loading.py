"""Finds hooks by ``module:name``, in the modules that may be named."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Any

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
NAME_MAX_CHARS = 200
DEFAULT_MODULES = "demo"
"""What ``HOOK_MODULES`` allows if it is unset: the right to edit a route must not be the right to run any code."""
PRODUCT_PACKAGES = frozenset(
    {
        "accounts", "analytics", "apimgmt", "audit", "configuration", "consumers", "events", "gateway", "jobs", "keys",
        "operators", "routes",
    }
)  # fmt: skip
"""The packages of the product: nothing in them was written to be called as a hook."""


def load(name: Any) -> Callable[..., Any]:
    """Import a hook. Raises ValueError with a message for the operator.

    Only modules that ``HOOK_MODULES`` allows can be named (``demo`` if it is unset), and none of the standard library
    and of the product.
    """
    if not isinstance(name, str) or len(name) > NAME_MAX_CHARS or not NAME.fullmatch(name):
        raise ValueError("A function must be named as module:name.")
    module_name, _, attribute = name.partition(":")
    _check_allowed(module_name)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # importing a hook must not end the process
        raise ValueError(f"The module {module_name} cannot be imported: {type(error).__name__}: {error}.") from None
    function = getattr(module, attribute, None)
    if not callable(function) or inspect.isclass(function):
        raise ValueError(f"{module_name} has no function {attribute}.")
    return function  # type: ignore[no-any-return]


def _check_allowed(module_name: str) -> None:
    package = module_name.partition(".")[0]
    if package in sys.stdlib_module_names or package in PRODUCT_PACKAGES:
        raise ValueError(
            f"{package} belongs to the standard library or to the product; name a function of a module of your own."
        )
    allowed = [part.strip() for part in os.environ.get("HOOK_MODULES", DEFAULT_MODULES).split(",") if part.strip()]
    if not any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in allowed):
        raise ValueError(f"HOOK_MODULES does not allow {module_name}; it allows {', '.join(allowed) or 'no module'}.")
