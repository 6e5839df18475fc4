"""Theme and navigation of the admin, in the colours of the dashboards."""

from __future__ import annotations

from typing import Any

from django.urls import reverse_lazy


def _item(title: str, icon: str, link: Any, permission: str = "", **more: Any) -> dict[str, Any]:
    item = {"title": title, "icon": icon, "link": link, **more}
    if permission:
        item["permission"] = lambda request: request.user.has_perm(permission)
    return item


def _list(title: str, icon: str, app: str, model: str, **more: Any) -> dict[str, Any]:
    return _item(title, icon, reverse_lazy(f"admin:{app}_{model}_changelist"), f"{app}.view_{model}", **more)


def _section(title: str, *items: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "separator": True, "items": list(items)}


INDIGO = {
    "50": "#eef2ff", "100": "#e0e7ff", "200": "#c7d2fe", "300": "#a5b4fc", "400": "#818cf8", "500": "#6366f1",
    "600": "#4f46e5", "700": "#4338ca", "800": "#3730a3", "900": "#312e81", "950": "#1e1b4b",
}  # fmt: skip

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "apimgmt",
    "SITE_HEADER": "apimgmt",
    "SITE_SUBHEADER": "API gateway and management",
    "SITE_SYMBOL": "hub",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/operators/icon.svg"}],
    "SITE_URL": "/dashboards/",
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "8px",
    "COLORS": {"primary": INDIGO},
    "STYLES": [lambda request: "/static/operators/admin.css"],
    "COMMAND": {"search_models": True},
    "DASHBOARD_CALLBACK": "apimgmt.front_page.callback",
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "navigation": [
            _section(
                "Traffic",
                _item("Overview", "monitoring", "/dashboards/"),
                _item("Connections", "lan", "/dashboards/connections"),
            ),
            _section(
                "Access",
                _list("Consumers", "group", "consumers", "consumer"),
                _list("Keys", "key", "keys", "key"),
                _list("Tiers", "speed", "consumers", "tier"),
                _list("JWT issuers", "verified_user", "keys", "jwtissuer"),
            ),
            _section(
                "API",
                _list("Routes", "route", "routes", "route"),
                _list("Channels", "stream", "events", "channel"),
            ),
            _section(
                "Events",
                _list("Subscriptions", "conversion_path", "events", "subscription"),
                _list("Connectors", "cable", "events", "connector"),
                _list("Schemas", "schema", "events", "subject"),
                _list(
                    "Dead letters", "mark_email_unread", "events", "deadletter", badge="events.admin.how_many_letters"
                ),
            ),
            _section(
                "System",
                _list("Audit log", "history", "audit", "change"),
                _list("Users", "manage_accounts", "auth", "user"),
                _item("API tokens", "vpn_key", reverse_lazy("admin:accounts_token_changelist")),
                _item("Your account", "shield_person", reverse_lazy("account")),
            ),
        ],
    },
}
