"""URLs of the landing page, the dashboards and the documents."""

from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views.decorators.common import no_append_slash
from django.views.generic import RedirectView

from analytics import delivery_views, document_urls, letter_job_views, public_views, views

# A page that does not exist is not found: no slash is appended, which would be removed again.
without_slash = no_append_slash(RedirectView.as_view(url="/dashboards/%(page)s", query_string=True))

urlpatterns = [
    path("", public_views.landing, name="landing"),
    path("dashboards/", views.overview, name="overview"),
    path("dashboards/live", views.live_events, name="live"),
    path("dashboards/last-hour", views.last_hour, name="last-hour"),
    path("dashboards/connections", views.connections, name="connections"),
    path("dashboards/connections/<str:connection_id>/disconnect", views.disconnect, name="disconnect"),
    path("dashboards/usage", views.usage, name="usage"),
    path("dashboards/limits", views.limits, name="limits"),
    path("dashboards/subscriptions", delivery_views.subscriptions, name="subscriptions"),
    path("dashboards/dead-letters", delivery_views.dead_letters, name="dead-letters"),
    path("dashboards/dead-letters/redrive", letter_job_views.settle, {"action": "redrive"}, name="redrive-all"),
    path("dashboards/dead-letters/discard", letter_job_views.settle, {"action": "discard"}, name="discard-all"),
    path("dashboards/dead-letters/jobs/<str:job_id>", letter_job_views.progress, name="letter-job"),
    path("dashboards/dead-letters/jobs/<str:job_id>/cancel", letter_job_views.cancel, name="letter-job-cancel"),
    path("dashboards/dead-letters/<int:letter_id>/redrive", delivery_views.redrive, name="redrive"),
    path("dashboards/dead-letters/<int:letter_id>/discard", delivery_views.discard, name="discard"),
    path("dashboards/login", views.Login.as_view(), name="login"),
    path("dashboards/logout", LogoutView.as_view(), name="logout"),
    path("dashboards/<str:page>/", without_slash),
    *document_urls.urlpatterns,
]
