"""Liveness, readiness, and metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from apimgmt.engine_checks import check_database, check_nats, check_redis
from gateway.link.metrics import Scraper

CHECKS: dict[str, Callable[[], Awaitable[None]]] = {
    "database": check_database,
    "redis": check_redis,
    "nats": check_nats,
}
scraper = Scraper(lambda: settings.NATS_URL)


async def healthz(request: HttpRequest) -> HttpResponse:
    """Return 200: the process serves requests."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


async def readyz(request: HttpRequest) -> HttpResponse:
    """Return 200 if every engine answers, else 503 with the state of each."""
    engines: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            await check()
        except Exception as error:
            engines[name] = f"unavailable ({type(error).__name__})"
        else:
            engines[name] = "ok"
    is_ready = all(state == "ok" for state in engines.values())
    return JsonResponse(
        {"status": "ok" if is_ready else "unavailable", "engines": engines},
        status=200 if is_ready else 503,
        headers={"Cache-Control": "no-store"} | ({} if is_ready else {"Retry-After": "1"}),
    )


async def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics of all processes in Prometheus' text format. Reads no table; labels are closed lists."""
    return HttpResponse(await scraper.text(), content_type="text/plain; version=0.0.4; charset=utf-8")
