"""Pages of the admin, used as a browser does."""

import re

from django.urls import reverse


def confirm(page, kind, shown):
    """Send the form of a question."""
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', shown.content.decode())
    return page.post(
        reverse(f"admin:{kind}_changelist"), {name: value for name, value in fields if name != "csrfmiddlewaretoken"}
    )
