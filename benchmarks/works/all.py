"""All works, in the order of the report."""

from __future__ import annotations

from benchmarks.works import fan_out, http, memory, product, publishing, sockets

WORKS = {
    work.name: work
    for work in (*http.WORKS, *sockets.WORKS, *fan_out.WORKS, *publishing.WORKS, *memory.WORKS, *product.WORKS)
}
