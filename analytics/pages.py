"""Renders the Markdown documents of ``docs/`` as pages of the product."""

from __future__ import annotations

import posixpath
import re
import textwrap
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

NAME = re.compile(r"(?:decisions/)?[a-z0-9-]{1,60}")
PICTURE = re.compile(r"[a-z0-9-]{1,60}\.png")
ORDER = (
    "configuration", "identity", "limits", "policies", "events", "browsers", "subscriptions", "schemas", "connectors",
    "contracts", "mqtt", "refusals", "management-api", "operators", "audit", "dashboards", "operations", "retention",
    "tracing", "promises", "security", "asvs", "benchmarks", "architecture", "glossary",
)  # fmt: skip
"""The order of the list; documents that are not named here follow, decisions last."""
SUMMARY_MAX_CHARS = 170


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered document."""

    name: str
    title: str
    html: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A document in the list of documents."""

    name: str
    title: str
    summary: str

    @property
    def is_decision(self) -> bool:
        """Whether it records a decision."""
        return self.name.startswith("decisions/")


def names() -> list[str]:
    """Return the names of all documents, in the order of the list."""
    paths = [str(path.relative_to(_folder()).with_suffix("")) for path in _folder().rglob("*.md")]
    return sorted((name for name in paths if NAME.fullmatch(name)), key=_rank)


def entries() -> list[Entry]:
    """Return an entry for each document, in the order of the list."""
    return [_entry(name, (_folder() / f"{name}.md").read_text()) for name in names()]


def page(name: str) -> Page | None:
    """Render a document; return None if there is none of that name."""
    if not NAME.fullmatch(name):
        return None
    path = _folder() / f"{name}.md"
    try:
        return _rendered(name, path.read_text(), path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def picture(name: str) -> bytes | None:
    """Return a picture as PNG; None if there is none of that name."""
    if not PICTURE.fullmatch(name):
        return None
    try:
        return (_folder() / "images" / name).read_bytes()
    except FileNotFoundError:
        return None


@lru_cache(maxsize=64)
def _rendered(name: str, text: str, changed_at: int) -> Page:
    return Page(name, _title(text), _markdown().render(text, {"folder": posixpath.dirname(name)}))


@lru_cache(maxsize=64)
def _entry(name: str, text: str) -> Entry:
    paragraphs = (paragraph.strip() for paragraph in text.split("\n\n"))
    prose = next((text for text in paragraphs if text[:1].isalpha() or text.startswith("**")), "")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", lambda match: match[1] or "", prose.replace("\n", " "))
    return Entry(name, _title(text), textwrap.shorten(plain, SUMMARY_MAX_CHARS, placeholder=" …"))


def _rank(name: str) -> tuple[bool, int, str]:
    return ("/" in name, ORDER.index(name) if name in ORDER else len(ORDER), name)


def _title(text: str) -> str:
    match = re.search(r"^# (.+)$", text, re.MULTILINE)
    return match[1] if match else "Untitled"


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    # Raw HTML is allowed: only the repository's own documents are rendered here.
    parser = MarkdownIt("commonmark", {"html": True, "highlight": _highlight}).enable("table")
    parser.add_render_rule("heading_open", _heading)
    parser.add_render_rule("link_open", _link)
    return parser


def _highlight(code: str, language: str, attributes: str) -> str:
    try:
        return str(highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True)))
    except ClassNotFound:
        return ""


def _heading(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Render a heading with an anchor: the slug of its text."""
    text = tokens[index + 1].content.strip("`")
    tokens[index].attrSet("id", re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"))
    return str(renderer.renderToken(tokens, index, options, env))


def _link(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Render a link to another document as a link to its page."""
    address, _, anchor = str(tokens[index].attrGet("href") or "").partition("#")
    if address.endswith(".md") and "://" not in address:
        name = posixpath.normpath(posixpath.join(env["folder"], address.removesuffix(".md")))
        if NAME.fullmatch(name):
            tokens[index].attrSet("href", f"/docs/{name}" + (f"#{anchor}" if anchor else ""))
    return str(renderer.renderToken(tokens, index, options, env))


def _folder() -> Path:
    return Path(settings.BASE_DIR) / "docs"
