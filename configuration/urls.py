"""URLs of the reference pages, under ``/docs/reference/``."""

from django.urls import path
from django.views.generic import RedirectView

from configuration import views

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="reference"), {"which": "openapi"}, name="references"),
    path("<str:which>.json", views.document, name="reference-document"),
    path("<str:which>", views.reference, name="reference"),
]
