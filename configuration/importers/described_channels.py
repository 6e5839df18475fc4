"""The channels that an AsyncAPI document describes, with their addresses and the parameters of these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from configuration.importers.addresses import Addresses, addresses_of, parameter_name
from configuration.importers.openapi import is_export
from configuration.importers.options import Options
from configuration.importers.references import Path, mapping
from configuration.importers.report import Report
from configuration.yaml_documents import Document, DocumentError

VERSIONS = ("2.", "3.")
Placed = tuple[dict[str, Any], Path]
"""A node and its path."""


@dataclass
class DescribedChannel:
    """One channel of the document: its node, the path of the node, and its address."""

    node: dict[str, Any]
    path: Path
    address: str
    enums: dict[str, list[str]]
    """The values that its parameters are restricted to, by the names that the address of a channel allows."""


def version_of(document: Document) -> str:
    """Return the version of AsyncAPI. Raises DocumentError for one that is not supported."""
    version = str(document.data["asyncapi"])
    if not version.startswith(VERSIONS):
        raise document.error(f"AsyncAPI {version} is not supported; 2.6 and 3.x are", "asyncapi")
    return version


def described_channels(document: Document, options: Options, report: Report) -> Iterator[DescribedChannel]:
    """Yield the selected channels, with their addresses under the prefix; others are added to the report."""
    described, path = mapping(document, document.data.get("channels") or {}, ("channels",))
    for name, node in described.items():
        try:
            yield from _channels_at(document, name, node, (*path, name), options, report)
        except DocumentError as error:
            report.skip(error)


def _channels_at(
    document: Document, name: str, node: Any, path: Path, options: Options, report: Report
) -> Iterator[DescribedChannel]:
    """Yield a channel of the document: several if its address stands for several."""
    node, path = mapping(document, node, path)
    is_2 = version_of(document).startswith("2.")
    written = node.get("x-address", name if is_2 else node.get("address"))
    if not isinstance(written, str) or not written:
        raise document.error(f"channel {name} has no address; add one, or remove the channel", *path)
    parameters = _parameters(document, written, node, path, report)
    enums = {name: texts(listed) for name, one in parameters.items() if isinstance(listed := one.get("enum"), list)}
    converted = Addresses([written])
    if "x-address" not in node and not is_export(document.data):
        defaults = {name: texts([one["default"]]) for name, one in parameters.items() if one.get("default") is not None}
        try:
            converted = addresses_of(written, defaults | {name: values for name, values in enums.items() if values})
        except ValueError as error:
            raise document.error(f"channel {written}: {error}", *path) from None
    for address in converted.addresses:
        if options.selects(name, address):
            yield DescribedChannel(
                node, path, options.address(address), {parameter_name(name): values for name, values in enums.items()}
            )
            if converted.note:
                report.skip(document.error(f"channel {written} is imported as {address}: {converted.note}", *path))


def _parameters(
    document: Document, address: str, node: dict[str, Any], path: Path, report: Report
) -> dict[str, dict[str, Any]]:
    """Return the parameters of a channel by name; none if they cannot be read, which is reported."""
    try:
        return dict(_described_parameters(document, node, path))
    except DocumentError as error:
        report.skip(DocumentError(f"{error}; the parameters of {address} are not restricted"))
        return {}


def _described_parameters(document: Document, node: dict[str, Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the parameters of a channel by name; in 2.x their schemas."""
    parameters, path = mapping(document, node.get("parameters") or {}, (*path, "parameters"))
    for name, described in parameters.items():
        parameter, where = mapping(document, described or {}, (*path, name))
        if version_of(document).startswith("2."):
            parameter, _ = mapping(document, parameter.get("schema") or {}, (*where, "schema"))
            parameter = parameter | ({"enum": [parameter["const"]]} if "const" in parameter else {})
        yield name, parameter


def texts(values: list[Any]) -> list[str]:
    return [value if isinstance(value, str) else json.dumps(value) for value in values]
