"""The terminal output of `up`: progress, then addresses and commands to paste."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urljoin

from rich.console import Console as Terminal
from rich.markup import escape

LINE_MAX_CHARS = 240


class Console:
    """Prints in colour on a terminal, and plain text elsewhere (``NO_COLOR`` is honoured).

    If the reader goes away (`up | head`), output is discarded and `up` continues.
    """

    def __init__(self) -> None:
        self._out = Terminal(highlight=False, soft_wrap=True)
        self._began_at = time.monotonic()

    def done(self, step: str, detail: str) -> None:
        """Print that a step is done."""
        took_s = time.monotonic() - self._began_at
        self._print(f"[green]✓[/] {step:10} [dim]{escape(detail)}  {took_s:.1f} s[/]")

    def failed(self, why: str) -> None:
        """Print why `up` cannot start."""
        self._print(f"[bold red]error:[/] {escape(why)}")

    def report(self, name: str, text: str) -> None:
        """Print a message about, or of, a process."""
        self._print(f"[yellow]{name}[/]: {escape(_on_one_line(text))}")

    def stopping(self) -> None:
        """Print that `up` is draining."""
        self._print(
            "\n[yellow]draining[/] [dim]closing open connections; press Ctrl-C again to stop without waiting[/]"
        )

    def stopped(self) -> None:
        """Print that all processes have ended."""
        self._print("[green]✓[/] stopped")

    def ready(self, ready: dict[str, Any], *, password: str | None) -> None:
        """Print where everything is, and the administrator's password on the run that created it."""
        base_url, admin = ready["base_url"], ready["admin"]
        sign_in = f"  {admin['username']} / {password}" if password is not None else ""
        places = (
            ("admin", admin["url"], sign_in),
            ("dashboards", urljoin(admin["url"], "/dashboards/"), ""),
            ("API", admin["api_url"], "  Authorization: Token …, see ready.json"),
            ("docs", f"{base_url}/docs/", ""),
            ("MQTT", ready["mqtt"], ""),
        )
        self._print(f"\n[bold]apimgmt is ready[/] at [bold cyan]{base_url}[/]\n")
        for name, place, suffix in places:
            self._print(f"  [dim]{name:10}[/] [cyan]{place}[/]{escape(suffix)}")
        self._print("")
        if "gold" in ready["keys"]:
            for name, command in commands(ready, ready["keys"]["gold"]):
                self._print(f"  [dim]{name:10}[/] {escape(command)}")
            self._print("")
        self._print("[dim]Ctrl-C drains and stops.[/]")

    def _print(self, text: str) -> None:
        try:
            self._out.print(text)
        except (OSError, SystemExit):  # rich exits if the reader is gone
            self._out = Terminal(quiet=True)


def commands(ready: dict[str, Any], key: str) -> list[tuple[str, str]]:
    """Return a command to paste for each protocol."""
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
    """Replace control characters and shorten the text: the log has it complete."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:LINE_MAX_CHARS])
