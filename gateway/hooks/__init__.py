"""Operators' functions, and the interface that they import: the names below stay as they are (docs/policies.md)."""

from gateway.hooks.api import DROP, Answer, Call, Headers, Message, Principal, Refuse, Request

__all__ = ["DROP", "Answer", "Call", "Headers", "Message", "Principal", "Refuse", "Request"]
