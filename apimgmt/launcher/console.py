"""What `up` prints: progress, then where everything is with commands to paste."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console as Terminal
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table


class Console:
    """Prints in colour on a terminal, plainly elsewhere (``NO_COLOR`` is honoured)."""

    def __init__(self) -> None:
        self._out = Terminal(highlight=False, soft_wrap=True)
        self._began_at = time.monotonic()

    def done(self, what: str, detail: str) -> None:
        """Say that a step is done."""
        took_s = time.monotonic() - self._began_at
        self._out.print(f"[green]✓[/] {what:10} [dim]{escape(detail)}  {took_s:.1f} s[/]")

    def failed(self, why: str) -> None:
        """Say that it cannot start."""
        self._out.print(f"[bold red]error:[/] {escape(why)}")

    def stopping(self) -> None:
        """Say that it drains."""
        self._out.print("\n[yellow]draining[/] [dim]open connections are asked to leave[/]")

    def stopped(self) -> None:
        """Say that nothing is left."""
        self._out.print("[green]✓[/] stopped")

    def ready(self, ready: dict[str, Any]) -> None:
        """Say where everything is."""
        admin, keys = ready["admin"], ready["keys"]
        self._out.print(f"\n[bold]apimgmt is ready[/] at [bold cyan]{ready['base_url']}[/]\n")
        table = Table.grid(padding=(0, 2))
        table.add_row("dashboards", f"[cyan]{ready['base_url']}/dashboards/[/]")
        table.add_row("admin", f"[cyan]{admin['url']}[/]  {admin['username']} / {escape(admin['password'])}")
        table.add_row("docs", f"[cyan]{ready['base_url']}/docs/[/]")
        table.add_row("MQTT", f"[cyan]{ready['mqtt']}[/]")
        self._out.print(Padding(table, (0, 0, 1, 2)))
        if keys:
            self._commands(ready, keys["gold"])
        self._out.print("[dim]Ctrl-C drains and stops.[/]")

    def _commands(self, ready: dict[str, Any], key: str) -> None:
        base_url, (host, port) = ready["base_url"], ready["mqtt"].rsplit(":", 1)
        ticket = f"T=$(curl -sX POST -H 'X-API-Key: {key}' {base_url}/v1/tickets | cut -d'\"' -f4)"
        event = '{"symbol":"ACME","price":104.2}'
        commands = (
            ("REST", f"curl -H 'X-API-Key: {key}' {base_url}/quotes/ACME"),
            ("SSE", f"curl -N -H 'X-API-Key: {key}' '{base_url}/v1/events?channel=sensors/demo-1/temperature'"),
            ("publish", f"curl -H 'X-API-Key: {key}' --json '{event}' {base_url}/v1/channels/trades/events"),
            ("WebSocket", f'{ticket}; .venv/bin/python -m websockets "{ready["ws_url"]}/v1/stream?ticket=$T"'),
            ("MQTT", f"mosquitto_sub -h {host} -p {port} -u key -P {key} -t 'sensors/+/temperature'"),
            ("job", f"curl -H 'X-API-Key: {key}' --json '{{\"type\":\"daily\"}}' {base_url}/reports"),
        )
        for name, command in commands:
            self._out.print(f"  [dim]{name:10}[/] {escape(command)}")
        self._out.print()
