"""Advisories in the format of OSV: which of them concern a version of a package.

https://ossf.github.io/osv-schema/, "Evaluation". The export of OSV for PyPI is such a folder, or archive.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

Record = dict[str, Any]
ECOSYSTEM = "PyPI"


class Advisories:
    """The records of a folder or a ``.zip`` archive, by package."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._by_package: dict[str, list[Record]] = {}
        for record in records:
            for package in {_package(affected) for affected in record.get("affected", ())} - {""}:
                self._by_package.setdefault(package, []).append(record)

    @classmethod
    def read(cls, path: Path) -> Advisories:
        """Read all records. Raises ValueError for a file that is no record, and where none concerns a package."""
        advisories = cls(_records(path))
        if not advisories._by_package:
            raise ValueError(f"{path} holds no advisory about a package of {ECOSYSTEM}")
        return advisories

    def concerning(self, package: str, version: str) -> list[Record]:
        """Return the records that are in force and name this version of the package as affected."""
        return [
            record
            for record in self._by_package.get(canonicalize_name(package), ())
            if record.get("withdrawn") is None
            and any(
                _package(affected) == canonicalize_name(package) and is_affected(affected, Version(version))
                for affected in record["affected"]
            )
        ]


def is_affected(affected: dict[str, Any], version: Version) -> bool:
    """Return whether the version is listed, or lies in one of the ranges."""
    if any(_same(listed, version) for listed in affected.get("versions", ())):
        return True
    return any(_is_within(range_["events"], version) for range_ in affected.get("ranges", ()) if _is_ordered(range_))


def _is_ordered(range_: dict[str, Any]) -> bool:
    return range_.get("type") in ("ECOSYSTEM", "SEMVER")


def _is_within(events: list[dict[str, str]], version: Version) -> bool:
    is_vulnerable = False
    for kind, at in sorted(((kind, _version(at)) for event in events for kind, at in event.items()), key=_order):
        if kind == "introduced" and version >= at:
            is_vulnerable = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            is_vulnerable = False
    return is_vulnerable


def _order(event: tuple[str, Version]) -> tuple[Version, bool]:
    return event[1], event[0] == "introduced"


def _version(text: str) -> Version:
    return Version("0.dev0") if text == "0" else Version(text)


def _same(listed: str, version: Version) -> bool:
    try:
        return Version(listed) == version
    except InvalidVersion:
        return False


def _package(affected: dict[str, Any]) -> str:
    package = affected.get("package", {})
    return canonicalize_name(package.get("name", "")) if package.get("ecosystem") == ECOSYSTEM else ""


def _records(path: Path) -> Iterator[Record]:
    for name, text in _texts(path):
        try:
            record = json.loads(text)
        except ValueError:
            raise ValueError(f"{name} is no JSON") from None
        if not isinstance(record, dict) or "id" not in record:
            raise ValueError(f"{name} is no advisory in the format of OSV")
        yield record


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield str(file), file.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield name, archive.read(name)
