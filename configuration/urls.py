"""Addresses of the reference pages, below ``/docs/reference/``."""

from django.urls import path

from configuration import views

urlpatterns = [
    path("<str:which>.json", views.document, name="reference-document"),
    path("<str:which>", views.reference, name="reference"),
]
