"""What Django serves on the data plane's origin: documents and health, and nothing with a session."""

from __future__ import annotations

from django.urls import include, path

from analytics import document_urls
from apimgmt import health

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("docs/reference/", include("configuration.urls")),
    *document_urls.urlpatterns,
]
