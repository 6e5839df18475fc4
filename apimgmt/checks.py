"""System checks of unsafe settings, run by `manage.py check --deploy` and before every start."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

SECRET_MIN_CHARS = 32


def register_all() -> None:
    """Register the checks of the project."""
    register(check_exposure, Tags.security, deploy=True)


def check_exposure(app_configs: Any, **options: Any) -> list[CheckMessage]:
    """Report debug mode, a wildcard host and short secrets."""
    errors: list[CheckMessage] = []
    if settings.DEBUG:
        errors.append(Error("DEBUG is on.", hint="Unset DEBUG.", id="apimgmt.E001"))
    if "*" in settings.ALLOWED_HOSTS:
        errors.append(Error("ALLOWED_HOSTS allows every host.", hint="List your hosts.", id="apimgmt.E002"))
    errors.extend(
        Error(f"{name} is shorter than {SECRET_MIN_CHARS} characters.", id="apimgmt.E003")
        for name in ("SECRET_KEY", "KEY_PEPPER")
        if len(getattr(settings, name)) < SECRET_MIN_CHARS
    )
    return errors
