"""The management API at /api/v1/: everything the admin can do, over HTTP."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver, path, re_path
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.permissions import SAFE_METHODS, AllowAny
from rest_framework.routers import SimpleRouter

from audit.publication import wait_until_published
from operators.problems import not_found

PARTS = (
    "accounts.api",
    "consumers.api",
    "keys.api",
    "routes.api",
    "events.api",
    "events.letter_job_api",
    "events.subscription_api",
    "events.connector_api",
    "events.registry_api",
    "configuration.api",
    "audit.api",
    "analytics.api",
)


class Router(SimpleRouter):
    """Responds to a write after it was published to the data plane, or after ``PUBLISHED_WITHIN_S``."""

    def get_urls(self) -> list[URLPattern | URLResolver]:
        """Return the URLs of all collections."""
        patterns = super().get_urls()
        for pattern in patterns:
            if isinstance(pattern, URLPattern):
                pattern.callback = _published_first(pattern.callback)
        return patterns


def _published_first(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    @functools.wraps(view)
    def published_first(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer = view(request, *args, **kwargs)
        if request.method not in SAFE_METHODS and answer.status_code < 300:
            wait_until_published(settings.PUBLISHED_WITHIN_S)
        return answer

    return published_first


router = Router()
router.trailing_slash = "/?"
for _part in PARTS:
    if importlib.util.find_spec(_part) is not None:
        importlib.import_module(_part).register(router)

_schema = SpectacularJSONAPIView.as_view(permission_classes=[AllowAny], authentication_classes=[])

urlpatterns = [
    path("schema/", _schema, name="management-schema"),
    path("schema", _schema),
    *router.urls,
    re_path(r"^(?P<rest>.*)$", not_found),
]
