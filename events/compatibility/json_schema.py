"""Whether one JSON Schema accepts everything that another accepts.

The proof is by cases and by structure, and is sound: what cannot be proved counts as incompatible. Instances are
finite, so a pair of schemas that is met again deeper in the instance may be assumed to be compatible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from events.compatibility.budget import Budget, Mismatch
from events.compatibility.json_assertions import RULES
from events.compatibility.json_contradictions import is_contradiction
from events.compatibility.json_documents import Document, Schema, identical
from events.compatibility.json_facts import Choice, Facts, Known, facts_of
from events.compatibility.json_goal import Goal, Proof

_FILLED_BESIDE = frozenset(
    {"allOf", "anyOf", "oneOf", "not", "if", "$ref", "patternProperties", "propertyNames", "maxProperties",
     "dependentRequired", "dependentSchemas", "unevaluatedProperties", "enum", "const",
     "uniqueItems", "contains"}
)  # fmt: skip
"""Next to these keywords, filling in a member with its default may make the instance invalid."""
IDENTICAL = 10
"""Small steps of comparing two schemas literally."""
_COMMENTS = frozenset({"$defs", "definitions", "$schema", "$id", "$comment", "title", "description"})
_OPAQUE = (
    "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef", "dependencies", "maxContains",
    "contentEncoding", "contentMediaType", "contentSchema",
)  # fmt: skip
"""Keywords that are only compared literally."""


def find_json_mismatch(reader: Document, writer: Document, budget: Budget) -> Mismatch | None:
    """Return why the reader's schema may refuse what the writer's accepts, or None. Raises TooComplex.

    A required member may be missing if the reader has a valid default for it.
    """
    return SchemaProver(budget).contains(
        Known((Schema(writer.root, writer),)), Schema(reader.root, reader), "", fills=True
    )


class SchemaProver:
    """Proves that one schema is contained in another, and remembers its proofs."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._proofs: dict[Any, Proof | int] = {}
        """The proof, or the level of the instance at which it is being attempted."""
        self._level = 0
        self._facts: dict[Any, tuple[Known, Facts]] = {}
        """Keeps alive the objects whose identities are its keys."""
        self._alike: dict[Any, bool] = {}

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Descend one level of the instance for the block."""
        self._level += 1
        try:
            yield
        finally:
            self._level -= 1

    def contains(self, known: Known, new: Schema, at: str, *, fills: bool = False) -> Proof:
        """Prove that every instance of what is known satisfies a schema."""
        key = (known.key, new.key, fills)
        proof = self._proofs.get(key, -1)
        if proof is None or isinstance(proof, Mismatch):
            return proof
        if proof >= 0:
            return None if proof < self._level else Mismatch(at, "refers to itself without end", "CIRCULAR_REFERENCE")
        with self._budget.step():
            facts = self.facts(known)
            return self._remember(key, lambda: self._proved(known, facts, new, at, fills=fills))

    def impossible(self, known: Known) -> bool:
        """Return whether it is proved that no instance satisfies what is known."""
        key = (known.key, "impossible")
        proof = self._proofs.get(key, -1)
        if proof is None or isinstance(proof, Mismatch):
            return proof is None
        if proof >= 0:
            return proof < self._level
        with self._budget.step():
            facts = self.facts(known)
            return self._remember(key, lambda: self._refuted(known, facts)) is None

    def facts(self, known: Known) -> Facts:
        """Return the facts of what is known, collected once."""
        if known.key not in self._facts:
            self._facts[known.key] = (known, facts_of(known, self._budget))
        return self._facts[known.key][1]

    def _identical(self, part: Schema, new: Schema) -> bool:
        pair = (part.key, new.key)
        if pair not in self._alike:
            self._alike[pair] = identical(part, new, self._alike)
        return self._alike[pair]

    def _remember(self, key: Any, proof: Callable[[], Proof]) -> Proof:
        """Run a proof and remember it; if it fails, the proofs that assumed it are forgotten."""
        before = len(self._proofs)
        self._proofs[key] = self._level
        failure = proof()
        if failure is not None:
            while len(self._proofs) > before:
                self._proofs.popitem()
        self._proofs[key] = failure
        return failure

    def _proved(self, known: Known, facts: Facts, new: Schema, at: str, *, fills: bool) -> Proof:
        self._budget.spend(IDENTICAL * len(facts.parts))
        if not facts.types or facts.values == [] or any(self._identical(part, new) for _, part in facts.parts):
            return None
        failure = self._direct(known, facts, new, at, fills=fills)
        if failure is None or self.impossible(known):
            return None
        cases = self._cases(known, facts, new)
        if cases is None:
            return failure
        proofs = (self.contains(case, new, at, fills=fills) for case in cases)
        return next((proof for proof in proofs if proof is not None), None)

    def _cases(self, known: Known, facts: Facts, new: Schema) -> Iterable[Known] | None:
        """Split what is known into exhaustive cases; None if it cannot be split."""
        if facts.values is not None and len(facts.values) > 1:
            constants = [Schema({"const": value}, Document(True)) for value in facts.values]
            return [known.also(constant) for constant in constants]
        if facts.choices:
            return _cases_of(known, facts.choices[0])
        if len(facts.types) > 1 and {"anyOf", "oneOf", "if", "not"} & new.keywords().keys():
            return [known.also(_OF_TYPE[name]) for name in sorted(facts.types)]
        return None

    def _direct(self, known: Known, facts: Facts, new: Schema, at: str, *, fills: bool) -> Proof:
        """Prove each keyword of a schema by itself."""
        keywords = new.keywords()
        fills_here = fills and not _FILLED_BESIDE & keywords.keys()
        goal = Goal(self, known, facts, new, keywords, at, fills_here)
        for word, rule in RULES.items():
            if word in keywords and (failure := rule(goal)) is not None:
                return failure
        for word, prove in _COMBINED.items():
            if word in keywords and (failure := prove(self, goal, fills=fills)) is not None:
                return failure
        return next(
            (_unlike(goal, word) for word in _OPAQUE if word in keywords and _matters(word, keywords, facts)), None
        )

    def _refuted(self, known: Known, facts: Facts) -> Proof:
        """Prove that no instance exists: None if proved."""
        if not facts.types or facts.values == [] or is_contradiction(self, facts):
            return None
        for excluded in facts.excluded:
            rest = Known(known.parts, (), known.used)
            if self.contains(rest, excluded, "") is None:
                return None
        for choice in facts.choices:
            if all(self.impossible(case) for case in _cases_of(known, choice)):
                return None
        return Mismatch("", "there may be instances", "POSSIBLE")


def _cases_of(known: Known, choice: Choice) -> Iterator[Known]:
    return (known.also(*holds, excluded=fails, used=choice.key) for holds, fails in choice.cases)


def _matters(word: str, keywords: dict[str, Any], facts: Facts) -> bool:
    """Return whether a keyword that is only compared literally can refuse anything here."""
    kind = _KIND_OF.get(word)
    return keywords[word] is not True and (kind is None or kind in facts.types)


def _unlike(goal: Goal, word: str) -> Mismatch:
    return Mismatch(f"{goal.at}/{word}", f"`{word}` cannot be compared where the schemas differ", "NOT_COMPARABLE")


def _prove_reference(prover: SchemaProver, goal: Goal, *, fills: bool) -> Proof:
    target = goal.new.document.resolve(goal.keywords["$ref"])
    if target is None:
        return _unlike(goal, "$ref")
    return prover.contains(goal.known, target, f"{goal.at}/$ref", fills=fills and _is_alone(goal, "$ref"))


def _is_alone(goal: Goal, word: str) -> bool:
    """Return whether a keyword has no sibling that filling in a member behind it could violate."""
    return not goal.keywords.keys() - _COMMENTS - {word}


def _prove_all(prover: SchemaProver, goal: Goal, *, fills: bool) -> Proof:
    for number, raw in enumerate(goal.keywords["allOf"]):
        failure = prover.contains(goal.known, goal.new.inner(raw), f"{goal.at}/allOf/{number}")
        if failure is not None:
            return failure
    return None


def _prove_any(prover: SchemaProver, goal: Goal, *, fills: bool) -> Proof:
    fills = fills and _is_alone(goal, "anyOf")
    for number, raw in enumerate(goal.keywords["anyOf"]):
        if prover.contains(goal.known, goal.new.inner(raw), f"{goal.at}/anyOf/{number}", fills=fills) is None:
            return None
    return Mismatch(
        f"{goal.at}/anyOf", "no branch accepts all that was accepted before", "COMBINED_TYPE_SUBSCHEMAS_CHANGED"
    )


def _prove_one(prover: SchemaProver, goal: Goal, *, fills: bool) -> Proof:
    branches = [goal.new.inner(raw) for raw in goal.keywords["oneOf"]]
    fills = fills and _is_alone(goal, "oneOf")
    for number, branch in enumerate(branches):
        others = [other for other in branches if other is not branch]
        # Filling in a member must not make the instance match another branch too.
        is_apart = fills and all(prover.impossible(Known((branch, other))) for other in others)
        if prover.contains(goal.known, branch, f"{goal.at}/oneOf/{number}", fills=is_apart) is None and all(
            prover.impossible(goal.known.also(other)) for other in others
        ):
            return None
    return Mismatch(
        f"{goal.at}/oneOf", "not exactly one branch accepts what was accepted", "COMBINED_TYPE_SUBSCHEMAS_CHANGED"
    )


def _prove_not(prover: SchemaProver, goal: Goal, *, fills: bool) -> Proof:
    if prover.impossible(goal.known.also(goal.new.inner(goal.keywords["not"]))):
        return None
    return Mismatch(f"{goal.at}/not", "refuses what was accepted before", "NOT_TYPE_NARROWED")


def _prove_condition(prover: SchemaProver, goal: Goal, *, fills: bool) -> Proof:
    condition = goal.new.inner(goal.keywords["if"])
    cases = {"then": goal.known.also(condition), "else": goal.known.also(excluded=[condition])}
    for word, case in cases.items():
        if word not in goal.keywords or prover.impossible(case):
            continue
        failure = prover.contains(case, goal.new.inner(goal.keywords[word]), f"{goal.at}/{word}")
        if failure is not None:
            return failure
    return None


_KIND_OF = {
    "unevaluatedProperties": "object", "unevaluatedItems": "array", "dependencies": "object", "maxContains": "array",
    "contentEncoding": "string", "contentMediaType": "string", "contentSchema": "string",
}  # fmt: skip
_COMBINED: dict[str, Callable[..., Proof]] = {
    "$ref": _prove_reference,
    "allOf": _prove_all,
    "anyOf": _prove_any,
    "oneOf": _prove_one,
    "not": _prove_not,
    "if": _prove_condition,
}
_OF_TYPE = {
    name: Schema(
        {"type": name} if name != "fraction" else {"type": "number", "not": {"type": "integer"}}, Document(True)
    )
    for name in ("null", "boolean", "string", "array", "object", "integer", "fraction")
}
