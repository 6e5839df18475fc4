"""Whether this process lives, whether its engines answer, and its figures for Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from django.http import HttpRequest, HttpResponse, JsonResponse

from apimgmt.engine_checks import check_database, check_nats, check_redis

CHECKS: dict[str, Callable[[], Awaitable[None]]] = {
    "database": check_database,
    "redis": check_redis,
    "nats": check_nats,
}


async def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200: the process serves."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


async def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 where every engine answers, else 503 that names those that do not."""
    found: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            await check()
        except Exception as error:
            found[name] = f"away ({type(error).__name__})"
        else:
            found[name] = "ok"
    is_ready = all(state == "ok" for state in found.values())
    return JsonResponse(
        {"status": "ok" if is_ready else "unavailable", "engines": found},
        status=200 if is_ready else 503,
        headers={"Cache-Control": "no-store"} | ({} if is_ready else {"Retry-After": "1"}),
    )


async def metrics(request: HttpRequest) -> HttpResponse:
    """Give usage of the last minutes over all processes, in Prometheus' text format. Labels are closed lists."""
    from analytics.services import prometheus

    return HttpResponse(await prometheus(), content_type="text/plain; version=0.0.4; charset=utf-8")
