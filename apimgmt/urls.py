"""The URLs that Django serves: the admin, the management API, and the pages of analytics."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from apimgmt import health

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    path("admin/", admin.site.urls),
    path("api/v1/", include("apimgmt.management_api")),
    path("docs/reference/", include("configuration.urls")),
    path("dashboards/", include("accounts.urls")),
    path("", include("analytics.urls")),
]
