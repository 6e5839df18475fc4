"""The policies that a route may name, by type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.policies.api_key import api_key
from gateway.policies.cors import cors
from gateway.policies.custom import custom
from gateway.policies.ip_restriction import ip_restriction
from gateway.policies.jwt import jwt
from gateway.policies.placeholder import PLACEHOLDER, placeholder
from gateway.policies.policy import Build
from gateway.policies.rate_limit import rate_limit
from gateway.policies.remove_headers import remove_headers
from gateway.policies.request_size_limit import request_size_limit
from gateway.policies.set_headers import set_headers
from gateway.policies.tee import tee
from gateway.policies.transform import transform
from gateway.policies.validate import validate

KNOWN: Mapping[str, Callable[[Mapping[str, Any]], Build]] = {
    "api-key": api_key,
    "jwt": jwt,
    "rate-limit": rate_limit,
    "cors": cors,
    "ip-restriction": ip_restriction,
    "request-size-limit": request_size_limit,
    "validate": validate,
    "set-headers": set_headers,
    "remove-headers": remove_headers,
    "transform": transform,
    "custom": custom,
    "tee": tee,
    PLACEHOLDER: placeholder,
}
"""Each reads a policy's options and returns how to build it. Raises ValueError for options that do not fit."""
