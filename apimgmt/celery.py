"""Celery, as the jobs use it."""

from celery import Celery

application = Celery("apimgmt")
application.config_from_object("django.conf:settings", namespace="CELERY")
application.autodiscover_tasks(["jobs"])
