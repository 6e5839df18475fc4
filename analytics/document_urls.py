"""URLs of the documents, which both origins serve."""

from django.urls import path

from analytics import public_views

urlpatterns = [
    path("docs/", public_views.documents, name="docs"),
    path("docs/images/<str:name>", public_views.picture),
    path("docs/<path:name>", public_views.document, name="document"),
]
