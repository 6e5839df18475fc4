"""The Django project: settings, URLs, and the processes of `manage.py up`."""
