"""JSON Schema documents as a comparison reads them: drafts made alike, references found, never fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from gateway.schemas.json_schema import draft_of, referenced

_SINCE = {
    "const": 6, "contains": 6, "propertyNames": 6, "if": 7, "then": 7, "else": 7,
    "dependentRequired": 2019, "dependentSchemas": 2019, "minContains": 2019, "maxContains": 2019,
    "unevaluatedProperties": 2019, "unevaluatedItems": 2019, "$recursiveRef": 2019,
    "prefixItems": 2020, "$dynamicRef": 2020,
}  # fmt: skip
"""Since which draft a keyword is one; before that it is a comment."""
_UNTIL = {"additionalItems": 2019, "$recursiveRef": 2019}
_IN_PLACE = frozenset(
    {"$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"}
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_ONE = (
    "items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else",
    "unevaluatedProperties", "unevaluatedItems",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Document:
    """A schema with those that it refers to by name."""

    root: Any
    others: Mapping[str, Document] = field(default_factory=dict)
    draft: int = 2020
    has_inner_ids: bool = False
    """A subschema has an ``$id`` of its own: what references in it mean is not followed."""
    anchors: dict[str, Schema] | None = None
    """Its parts by their names, once they are asked for."""
    validators: dict[int, Any] = field(default_factory=dict)
    """Schemas of this document that were compiled, by the identity of their JSON."""
    held: list[Any] = field(default_factory=list)
    """What was made for a comparison, and must not go while identities of it are remembered."""

    @classmethod
    def of(cls, root: Any, others: Mapping[str, Any] | None = None) -> Document:
        """Make one of JSON, and of the JSON that its references name."""
        documents: dict[str, Document] = {}
        for name, other in (others or {}).items():
            documents[name] = cls(other, documents, draft_of(other), _has_inner_ids(other))
        return cls(root, documents, draft_of(root), _has_inner_ids(root))

    def resolve(self, reference: Any) -> Schema | None:
        """Find what a reference means; None where that is not known."""
        if not isinstance(reference, str) or self.has_inner_ids:
            return None
        name, _, fragment = reference.partition("#")
        document = self if not name or name == self._id() else referenced(name, self.others)
        if document is None or document.has_inner_ids:
            return None
        return document.at(unquote(fragment))

    def at(self, fragment: str) -> Schema | None:
        """Find a part of this document by the pointer or the anchor of a fragment."""
        if fragment and not fragment.startswith("/"):
            if self.anchors is None:
                self.anchors = _anchors(self)
            return self.anchors.get(fragment)
        value = self.root
        for step in fragment.split("/")[1:]:
            value = _member(value, step.replace("~1", "/").replace("~0", "~"))
        return Schema(value, self) if isinstance(value, dict | bool) else None

    def _id(self) -> str | None:
        root = self.root if isinstance(self.root, dict) else {}
        return root.get("$id") or root.get("id")


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """A schema where it stands."""

    raw: Any
    document: Document

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from others for as long as both are held."""
        return id(self.raw), id(self.document)

    def inner(self, raw: Any) -> Schema:
        """Give a schema that stands in this one."""
        return Schema(raw, self.document)

    def keywords(self) -> dict[str, Any]:
        """Give its assertions in the words of draft 2020-12; what its draft does not know is left out."""
        if isinstance(self.raw, bool):
            return {} if self.raw else {"type": []}
        draft = self.document.draft
        if draft <= 7 and "$ref" in self.raw:
            return {"$ref": self.raw["$ref"]}
        said = {
            name: value
            for name, value in self.raw.items()
            if _SINCE.get(name, 0) <= draft and _UNTIL.get(name, draft) >= draft
        }
        if draft == 4:
            _mend_bounds(said)
        if draft <= 2019:
            _mend_items(said)
        if draft <= 7:
            _mend_dependencies(said)
        _mend_unevaluated(said)
        return said


Pair = tuple[tuple[int, int], tuple[int, int]]


def identical(one: Schema, other: Schema, known: dict[Pair, bool]) -> bool:
    """Say whether two schemas are written alike, and what they refer to too; ``known`` keeps what is found."""
    waiting, seen = [(one, other)], set[Pair]()
    while waiting:
        left, right = waiting.pop()
        pair = (left.key, right.key)
        if pair in seen or known.get(pair):
            continue
        seen.add(pair)
        targets = None if pair in known else _targets(left, right)
        if targets is None:
            known[pair] = known[one.key, other.key] = False
            return False
        waiting += targets
    known.update(dict.fromkeys(seen, True))
    return True


def _targets(left: Schema, right: Schema) -> list[tuple[Schema, Schema]] | None:
    """Give what two schemas refer to, pair by pair; None where they are not written alike, or it is not known."""
    if left.document.draft != right.document.draft or left.document.has_inner_ids or right.document.has_inner_ids:
        return None
    if not same(left.raw, right.raw):
        return None
    found = [(left.document.resolve(each), right.document.resolve(each)) for each in _references(left.raw)]
    pairs = [(one, other) for one, other in found if one is not None and other is not None]
    return pairs if len(pairs) == len(found) else None


def same(one: Any, other: Any) -> bool:
    """Compare JSON values: 1 is 1.0, but is not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def has_references(raw: Any) -> bool:
    """Say whether a schema refers to another."""
    return any(True for _ in _references(raw))


def _references(raw: Any) -> Iterator[Any]:
    """Give every reference in a schema, and what only looks like one: that makes a comparison stricter."""
    waiting = [raw]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
            for word in ("$ref", "$dynamicRef", "$recursiveRef"):
                if word in value:
                    yield value[word] if word == "$ref" else None
        elif isinstance(value, list):
            waiting.extend(value)


def _inside(root: Any, document: Document) -> Iterator[Schema]:
    """Give every schema of a document."""
    waiting = [root]
    while waiting:
        raw = waiting.pop()
        if not isinstance(raw, dict):
            continue
        yield Schema(raw, document)
        for word in _ONE:
            waiting.extend(raw[word] if isinstance(raw.get(word), list) else [raw.get(word)])
        for word in _LISTS:
            waiting.extend(raw[word] if isinstance(raw.get(word), list) else ())
        for word in _MAPS:
            waiting.extend(raw[word].values() if isinstance(raw.get(word), dict) else ())


def _has_inner_ids(root: Any) -> bool:
    for schema in _inside(root, Document(root)):
        own = schema.raw.get("$id", schema.raw.get("id"))
        if schema.raw is not root and isinstance(own, str) and not own.startswith("#"):
            return True
    return False


def _anchors(document: Document) -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    for schema in _inside(document.root, document):
        names = [schema.raw.get("$anchor"), *(schema.raw.get(word) for word in ("$id", "id"))]
        for number, name in enumerate(names):
            if isinstance(name, str) and (number == 0 or name.startswith("#")):
                found.setdefault(name.removeprefix("#"), schema)
    return found


def _member(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    return None


def _mend_bounds(said: dict[str, Any]) -> None:
    """Draft 4: ``exclusiveMinimum: true`` belongs to ``minimum``."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if said.pop(exclusive, False) is True and bound in said:
            said[exclusive] = said.pop(bound)


def _mend_items(said: dict[str, Any]) -> None:
    """Until 2019-09 ``items`` may be a list, and ``additionalItems`` is what follows it."""
    more = said.pop("additionalItems", None)
    if isinstance(said.get("items"), list):
        said["prefixItems"] = said.pop("items")
        if more is not None:
            said["items"] = more


def _mend_unevaluated(said: dict[str, Any]) -> None:
    """Where no other schema is applied to the same instance, what is not evaluated is what is additional."""
    if _IN_PLACE & said.keys():
        return
    if "unevaluatedProperties" in said and "additionalProperties" not in said:
        said["additionalProperties"] = said.pop("unevaluatedProperties")
    if "unevaluatedItems" in said and not {"items", "contains"} & said.keys():
        said["items"] = said.pop("unevaluatedItems")


def _mend_dependencies(said: dict[str, Any]) -> None:
    """Until draft 7 one keyword said both kinds of dependency."""
    for name, wanted in said.pop("dependencies", {}).items():
        word = "dependentRequired" if isinstance(wanted, list) else "dependentSchemas"
        said.setdefault(word, {})[name] = wanted
