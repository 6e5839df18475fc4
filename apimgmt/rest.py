"""Settings of Django REST framework and drf-spectacular for the management API."""

from __future__ import annotations

from typing import Any

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": (
        "accounts.authentication.OperatorTokens",
        "rest_framework.authentication.SessionAuthentication",
    ),
    "DEFAULT_PERMISSION_CLASSES": ("operators.access.OperatorMay",),
    "DEFAULT_PARSER_CLASSES": ("operators.bodies.BoundedJsonParser",),
    "DEFAULT_RENDERER_CLASSES": ("rest_framework.renderers.JSONRenderer",),
    "DEFAULT_FILTER_BACKENDS": ("operators.filters.StrictFilters",),
    "DEFAULT_PAGINATION_CLASS": "operators.paging.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "operators.problems.problem_response",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "apimgmt management API",
    "DESCRIPTION": "Everything the admin can do, over HTTP: consumers, keys, tiers, routes, channels and more.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    # Enums that share a field name or choices would get a hash in their name, which changes with the choices.
    "ENUM_NAME_OVERRIDES": {
        "LimitModeEnum": "consumers.limits.MODES",
        "LimitScopeEnum": "consumers.limits.SCOPES",
        "LimitExceedEnum": "consumers.limits.EXCEEDS",
        "LimitFailEnum": "consumers.limits.FAILS",
        "RouteProtocolEnum": "routes.models.RouteProtocol",
        "OnInvalidEnum": "events.models.OnInvalid",
        "ChangeActionEnum": "audit.models.Action",
        "SubscriptionTypeEnum": "events.models.SubscriptionType",
        "SubscriptionOrderEnum": "events.models.SubscriptionOrder",
        "SubscriptionStateEnum": "events.models.SubscriptionState",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "operators.description.describe_problems",
        "operators.description.describe_bounds",
    ],
}
