"""What `up` prints: progress, then where everything is with commands to paste."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urljoin

from rich.console import Console as Terminal
from rich.markup import escape

LINE_MAX_CHARS = 240


class Console:
    """Prints in colour on a terminal, plainly elsewhere (``NO_COLOR`` is honoured).

    A reader that is gone (`up | head`) is no reason to stop, and none to stop without draining.
    """

    def __init__(self) -> None:
        self._out = Terminal(highlight=False, soft_wrap=True)
        self._began_at = time.monotonic()

    def done(self, what: str, detail: str) -> None:
        """Say that a step is done."""
        took_s = time.monotonic() - self._began_at
        self._print(f"[green]✓[/] {what:10} [dim]{escape(detail)}  {took_s:.1f} s[/]")

    def failed(self, why: str) -> None:
        """Say that it cannot start."""
        self._print(f"[bold red]error:[/] {escape(why)}")

    def told(self, name: str, what: str) -> None:
        """Say what became of a process, or what it has to say."""
        self._print(f"[yellow]{name}[/]: {escape(_on_one_line(what))}")

    def stopping(self) -> None:
        """Say that it drains."""
        self._print("\n[yellow]draining[/] [dim]open connections are asked to leave; Ctrl-C again does not wait[/]")

    def stopped(self) -> None:
        """Say that nothing is left."""
        self._print("[green]✓[/] stopped")

    def ready(self, ready: dict[str, Any]) -> None:
        """Say where everything is."""
        base_url, admin = ready["base_url"], ready["admin"]
        places = (
            ("admin", admin["url"], f"  {admin['username']} / {admin['password']}"),
            ("dashboards", urljoin(admin["url"], "/dashboards/"), ""),
            ("API", admin["api_url"], "  Authorization: Token …, see ready.json"),
            ("docs", f"{base_url}/docs/", ""),
            ("MQTT", ready["mqtt"], ""),
        )
        self._print(f"\n[bold]apimgmt is ready[/] at [bold cyan]{base_url}[/]\n")
        for name, place, more in places:
            self._print(f"  [dim]{name:10}[/] [cyan]{place}[/]{escape(more)}")
        self._print("")
        if "gold" in ready["keys"]:
            for name, command in commands(ready, ready["keys"]["gold"]):
                self._print(f"  [dim]{name:10}[/] {escape(command)}")
            self._print("")
        self._print("[dim]Ctrl-C drains and stops.[/]")

    def _print(self, text: str) -> None:
        try:
            self._out.print(text)
        except (OSError, SystemExit):  # rich ends the process where its reader is gone
            self._out = Terminal(quiet=True)


def commands(ready: dict[str, Any], key: str) -> list[tuple[str, str]]:
    """Give a command to paste for each protocol."""
    base_url, (host, port) = ready["base_url"], ready["mqtt"].rsplit(":", 1)
    host = host.strip("[]")
    ticket = f"T=$(curl -sX POST -H 'X-API-Key: {key}' {base_url}/v1/tickets | cut -d'\"' -f4)"
    event = '{"symbol":"ACME","price":104.2}'
    mqtt = f"-h {host} -p {port} -u key -P {key}"
    return [
        ("REST", f"curl -H 'X-API-Key: {key}' {base_url}/quotes/ACME"),
        ("SSE", f"curl -N -H 'X-API-Key: {key}' '{base_url}/v1/events?channel=sensors/demo-1/temperature'"),
        ("publish", f"curl -H 'X-API-Key: {key}' --json '{event}' {base_url}/v1/channels/trades/events"),
        ("WebSocket", f'{ticket}; .venv/bin/python -m websockets "{ready["ws_url"]}/v1/stream?ticket=$T"'),
        ("MQTT sub", f"mosquitto_sub {mqtt} -t 'sensors/+/temperature'"),
        ("MQTT pub", f"mosquitto_pub {mqtt} -t sensors/mine/temperature -m '{{\"value\":21.5}}' -q 1"),
        ("job", f"curl -H 'X-API-Key: {key}' --json '{{\"type\":\"daily\"}}' {base_url}/reports"),
    ]


def _on_one_line(text: str) -> str:
    """Keep what could move a terminal's cursor out of it, and the rest short: the log has it whole."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:LINE_MAX_CHARS])
