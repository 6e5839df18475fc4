"""Hooks, the Python functions of operators, and the stable interface that they import (docs/policies.md)."""

from gateway.hooks.api import DROP, Answer, Call, Headers, Message, Principal, Refuse, Request

__all__ = ["DROP", "Answer", "Call", "Headers", "Message", "Principal", "Refuse", "Request"]
