"""URLs of an operator's own account and its second factor."""

from django.urls import path

from accounts import views
from accounts.oidc import views as oidc_views

urlpatterns = [
    path("account", views.account, name="account"),
    path("account/recovery-codes", views.recovery_codes, name="recovery-codes"),
    path("account/second-factor/remove", views.remove_second_factor, name="remove-second-factor"),
    path("second-factor", views.prove, name="second-factor"),
    path("second-factor/enrol", views.enrol, name="enrol"),
    path("oidc/begin", oidc_views.begin, name="oidc-begin"),
    path("oidc/callback", oidc_views.callback, name="oidc-callback"),
]
