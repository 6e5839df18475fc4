"""``manage.py runserver``: Daphne's development server, which serves the data plane as well as the pages.

Daphne is not in ``INSTALLED_APPS``, as that would load Twisted into every process.
"""

from __future__ import annotations

from typing import Any

from daphne.management.commands.runserver import Command as DaphneCommand

from apimgmt import env


class Command(DaphneCommand):  # type: ignore[misc]
    """Django's ``runserver``, on Daphne."""

    help = "Serve the pages and the data plane with Daphne, for development, beside the engines of `manage.py up`."

    def inner_run(self, *arguments: Any, **options: Any) -> None:
        """Serve, with a warning where no engines are configured: pages work without them, the data plane does not."""
        try:
            env.gateway_config("web")
        except env.InvalidSetting as error:
            self.stderr.write(self.style.WARNING(f"The data plane cannot be served: {error}"))
        super().inner_run(*arguments, **options)
