"""Delivery processes for tests of webhooks, and what the API shows of their subscriptions."""

import contextlib
import dataclasses
from ipaddress import ip_network

from gateway.delivery.process import DeliveryProcess

LOOPBACK = (ip_network("127.0.0.0/8"),)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


FAST = {"retry_schedule_s": [0, 0.05, 0.05], "max_attempts": 3}


@contextlib.asynccontextmanager
async def delivering(whole, *, name="delivery", **options):
    config = dataclasses.replace(whole.plane.config, process=name, kind="delivery")
    delivery = await DeliveryProcess.start(config, **options)
    try:
        yield delivery
    finally:
        await delivery.stop()


async def shown(whole, subscription):
    _, body = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}")
    return body


async def stands(whole, subscription, state, reason=None):
    body = await shown(whole, subscription)
    return (body["state"], body["state_reason"]) == (state, reason) and body


async def is_behind(whole, subscription):
    return (await shown(whole, subscription))["lag"]["events"] >= 1


async def caught_up(whole, subscription):
    body = await shown(whole, subscription)
    return body["lag"]["events"] == 0 and body


async def attempts_of(whole, id_, query=""):
    return (await whole.call("GET", f"/v1/subscriptions/{id_}/attempts{query}"))[1]["results"]


async def two_attempts(whole, id_):
    found = await attempts_of(whole, id_)
    return len(found) == 2 and found
