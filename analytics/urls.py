"""Addresses of the dashboards, the landing page and the documents."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
