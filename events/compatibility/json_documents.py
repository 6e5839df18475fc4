"""JSON Schema documents for comparison: drafts normalized to 2020-12, references resolved but never fetched."""

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
"""First draft of a keyword; in earlier ones it is a comment."""
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
    """A schema document with those that it refers to by name."""

    root: Any
    others: Mapping[str, Document] = field(default_factory=dict)
    draft: int = 2020
    has_inner_ids: bool = False
    """Whether a subschema has its own ``$id``: references in such a document are not resolved."""
    anchors: dict[str, Schema] | None = None
    """Subschemas by anchor, collected on first use."""
    validators: dict[int, Any] = field(default_factory=dict)
    """Compiled schemas of this document, by the identity of their JSON."""
    held: list[Any] = field(default_factory=list)
    """Objects created for a comparison, kept alive while their identities are remembered."""

    @classmethod
    def of(cls, root: Any, others: Mapping[str, Any] | None = None) -> Document:
        """Create a document from JSON and from the JSON that its references name."""
        documents: dict[str, Document] = {}
        for name, other in (others or {}).items():
            documents[name] = cls(other, documents, draft_of(other), _has_inner_ids(other))
        return cls(root, documents, draft_of(root), _has_inner_ids(root))

    def resolve(self, reference: Any) -> Schema | None:
        """Return the schema that a reference refers to, or None if it cannot be resolved."""
        if not isinstance(reference, str) or self.has_inner_ids:
            return None
        name, _, fragment = reference.partition("#")
        document = self if not name or name == self._id() else referenced(name, self.others)
        if document is None or document.has_inner_ids:
            return None
        return document.at(unquote(fragment))

    def at(self, fragment: str) -> Schema | None:
        """Return the subschema at the pointer or anchor of a fragment, if any."""
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
    """A schema and the document that contains it."""

    raw: Any
    document: Document

    @property
    def key(self) -> tuple[int, int]:
        """Identity of the schema, valid while it is kept alive."""
        return id(self.raw), id(self.document)

    def inner(self, raw: Any) -> Schema:
        """Return a subschema of this one."""
        return Schema(raw, self.document)

    def keywords(self) -> dict[str, Any]:
        """Return its keywords normalized to draft 2020-12, without those that its draft does not define."""
        if isinstance(self.raw, bool):
            return {} if self.raw else {"type": []}
        draft = self.document.draft
        if draft <= 7 and "$ref" in self.raw:
            return {"$ref": self.raw["$ref"]}
        keywords = {
            name: value
            for name, value in self.raw.items()
            if _SINCE.get(name, 0) <= draft and _UNTIL.get(name, draft) >= draft
        }
        if draft == 4:
            _normalize_bounds(keywords)
        if draft <= 2019:
            _normalize_items(keywords)
        if draft <= 7:
            _normalize_dependencies(keywords)
        _normalize_unevaluated(keywords)
        return keywords


Pair = tuple[tuple[int, int], tuple[int, int]]


def identical(one: Schema, other: Schema, cache: dict[Pair, bool]) -> bool:
    """Return whether two schemas and all that they refer to are literally the same; ``cache`` keeps results."""
    waiting, seen = [(one, other)], set[Pair]()
    while waiting:
        left, right = waiting.pop()
        pair = (left.key, right.key)
        if pair in seen or cache.get(pair):
            continue
        seen.add(pair)
        targets = None if pair in cache else _targets(left, right)
        if targets is None:
            cache[pair] = cache[one.key, other.key] = False
            return False
        waiting += targets
    cache.update(dict.fromkeys(seen, True))
    return True


def _targets(left: Schema, right: Schema) -> list[tuple[Schema, Schema]] | None:
    """Return the pairs of what two schemas refer to; None if they differ or a reference cannot be resolved."""
    if left.document.draft != right.document.draft or left.document.has_inner_ids or right.document.has_inner_ids:
        return None
    if not same(left.raw, right.raw):
        return None
    found = [(left.document.resolve(each), right.document.resolve(each)) for each in _references(left.raw)]
    pairs = [(one, other) for one, other in found if one is not None and other is not None]
    return pairs if len(pairs) == len(found) else None


def same(one: Any, other: Any) -> bool:
    """Return whether JSON values are equal: 1 equals 1.0, but not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def has_references(raw: Any) -> bool:
    """Return whether a schema contains a reference."""
    return any(True for _ in _references(raw))


def _references(raw: Any) -> Iterator[Any]:
    """Yield every reference in a schema. Look-alikes are included, which only makes a comparison stricter."""
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
    """Yield every schema of a document."""
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


def _normalize_bounds(keywords: dict[str, Any]) -> None:
    """Draft 4: ``exclusiveMinimum: true`` belongs to ``minimum``."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if keywords.pop(exclusive, False) is True and bound in keywords:
            keywords[exclusive] = keywords.pop(bound)


def _normalize_items(keywords: dict[str, Any]) -> None:
    """Until 2019-09, ``items`` may be a list followed by ``additionalItems``."""
    more = keywords.pop("additionalItems", None)
    if isinstance(keywords.get("items"), list):
        keywords["prefixItems"] = keywords.pop("items")
        if more is not None:
            keywords["items"] = more


def _normalize_unevaluated(keywords: dict[str, Any]) -> None:
    """If no other schema applies to the same instance, unevaluated members are additional ones."""
    if _IN_PLACE & keywords.keys():
        return
    if "unevaluatedProperties" in keywords and "additionalProperties" not in keywords:
        keywords["additionalProperties"] = keywords.pop("unevaluatedProperties")
    if "unevaluatedItems" in keywords and not {"items", "contains"} & keywords.keys():
        keywords["items"] = keywords.pop("unevaluatedItems")


def _normalize_dependencies(keywords: dict[str, Any]) -> None:
    """Until draft 7, ``dependencies`` was both ``dependentRequired`` and ``dependentSchemas``."""
    for name, dependents in keywords.pop("dependencies", {}).items():
        word = "dependentRequired" if isinstance(dependents, list) else "dependentSchemas"
        keywords.setdefault(word, {})[name] = dependents
