"""The management API at /api/v1/: everything that the admin can do, for programs."""

urlpatterns: list = []
