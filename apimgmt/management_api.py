"""The management API at /api/v1/: everything that the admin can do, for programs."""

from __future__ import annotations

import importlib
import importlib.util

from django.urls import path, re_path
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.permissions import AllowAny
from rest_framework.routers import SimpleRouter

from operators.problems import not_found

PARTS = (
    "consumers.api",
    "keys.api",
    "routes.api",
    "events.api",
    "events.subscription_api",
    "events.connector_api",
    "events.registry_api",
    "configuration.api",
    "audit.api",
    "analytics.api",
)

router = SimpleRouter()
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
