"""The documents of ``docs/``, rendered inside the product's own pages."""

from __future__ import annotations

import re
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

NAME = re.compile(r"[a-z0-9-]{1,60}")


@dataclass(frozen=True, slots=True)
class Page:
    """One document."""

    name: str
    title: str
    html: str


def names() -> list[str]:
    """Give the names of all documents."""
    return sorted(path.stem for path in _folder().glob("*.md"))


def titles() -> list[tuple[str, str]]:
    """Give all documents' names and titles."""
    return [(name, _title((_folder() / f"{name}.md").read_text())) for name in names()]


def page(name: str) -> Page | None:
    """Render a document; None where there is none of that name."""
    if not NAME.fullmatch(name):
        return None
    path = _folder() / f"{name}.md"
    try:
        return _rendered(name, path.read_text(), path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=64)
def _rendered(name: str, text: str, changed_at: int) -> Page:
    return Page(name, _title(text), _markdown().render(text))


def _title(text: str) -> str:
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1] if found else "Untitled"


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    # HTML is let through: these are our own documents, and nobody else's text is ever rendered here.
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
    """Give every heading an anchor: the slug of its text."""
    text = tokens[index + 1].content.strip("`")
    tokens[index].attrSet("id", re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"))
    return str(renderer.renderToken(tokens, index, options, env))


def _link(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Turn links between documents into links between pages."""
    href = str(tokens[index].attrGet("href") or "")
    if found := re.fullmatch(r"(?:docs/)?([a-z0-9-]+)\.md(#.*)?", href):
        tokens[index].attrSet("href", f"/docs/{found[1]}{found[2] or ''}")
    return str(renderer.renderToken(tokens, index, options, env))


def _folder() -> Path:
    return Path(settings.BASE_DIR) / "docs"
