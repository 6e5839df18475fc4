"""Whether all that one JSON Schema accepts is accepted by another.

The proof is by cases and by structure, and never says yes where it has not proved it; what it cannot prove counts as
incompatible. Instances are finite, so a pair of schemas that is met again further down in the instance may be assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from events.compatibility import json_assertions as assertions
from events.compatibility.budget import Budget, Fault
from events.compatibility.json_documents import Document, Schema, identical
from events.compatibility.json_facts import Choice, Facts, Known, facts_of

Proof = Fault | None
"""None where it is proved."""
_FILLED_BESIDE = frozenset(
    {"allOf", "anyOf", "oneOf", "not", "if", "$ref", "patternProperties", "propertyNames", "maxProperties",
     "dependentRequired", "dependentSchemas", "unevaluatedProperties", "enum", "const",
     "uniqueItems", "contains"}
)  # fmt: skip
"""Beside these a member that is filled in with its default may break what it was to mend."""
IDENTICAL = 10
"""What it costs to look whether two schemas are written alike."""
_COMMENTS = frozenset({"$defs", "definitions", "$schema", "$id", "$comment", "title", "description"})
_OPAQUE = (
    "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef", "dependencies", "maxContains",
    "contentEncoding", "contentMediaType", "contentSchema",
)  # fmt: skip
"""What is compared as it is written alone."""


def refused(reader: Document, writer: Document, budget: Budget) -> Fault | None:
    """Say what the writer's schema accepts and the reader's does not; None where there is nothing. Raises TooComplex.

    A member that the reader requires may be missing where the reader has a valid default for it.
    """
    return Prover(budget).contains(Known((Schema(writer.root, writer),)), Schema(reader.root, reader), "", fills=True)


class Prover:
    """Proves one schema to lie within another; keeps what it has found."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._proofs: dict[Any, Proof | int] = {}
        """What was found, or at which level of the instance it is being looked for."""
        self._level = 0
        self._facts: dict[Any, tuple[Known, Facts]] = {}
        """Holds on to what its keys are the identities of."""
        self._alike: dict[Any, bool] = {}

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Go down one level of the instance."""
        self._level += 1
        try:
            yield
        finally:
            self._level -= 1

    def contains(self, known: Known, new: Schema, at: str, *, fills: bool = False) -> Proof:
        """Prove that whatever is known to be so satisfies a schema."""
        key = (known.key, new.key, fills)
        found = self._proofs.get(key, -1)
        if found is None or isinstance(found, Fault):
            return found
        if found >= 0:
            return None if found < self._level else Fault(at, "refers to itself without end", "CIRCULAR_REFERENCE")
        with self._budget.step():
            facts = self.facts(known)
            return self._kept(key, lambda: self._proved(known, facts, new, at, fills=fills))

    def impossible(self, known: Known) -> bool:
        """Prove that there is no instance of which all that holds."""
        key = (known.key, "impossible")
        found = self._proofs.get(key, -1)
        if found is None or isinstance(found, Fault):
            return found is None
        if found >= 0:
            return found < self._level
        with self._budget.step():
            facts = self.facts(known)
            return self._kept(key, lambda: self._refuted(known, facts)) is None

    def facts(self, known: Known) -> Facts:
        """Write out what is known."""
        if known.key not in self._facts:
            self._facts[known.key] = (known, facts_of(known, self._budget))
        return self._facts[known.key][1]

    def _identical(self, part: Schema, new: Schema) -> bool:
        pair = (part.key, new.key)
        if pair not in self._alike:
            self._alike[pair] = identical(part, new, self._alike)
        return self._alike[pair]

    def _kept(self, key: Any, proof: Callable[[], Proof]) -> Proof:
        """Prove and remember; a proof that failed takes with it what was found on its assumption."""
        before = len(self._proofs)
        self._proofs[key] = self._level
        fault = proof()
        if fault is not None:
            while len(self._proofs) > before:
                self._proofs.popitem()
        self._proofs[key] = fault
        return fault

    def _proved(self, known: Known, facts: Facts, new: Schema, at: str, *, fills: bool) -> Proof:
        self._budget.spend(IDENTICAL * len(facts.parts))
        if not facts.types or facts.values == [] or any(self._identical(part, new) for _, part in facts.parts):
            return None
        fault = self._direct(known, facts, new, at, fills=fills)
        if fault is None or self.impossible(known):
            return None
        cases = self._cases(known, facts, new)
        if cases is None:
            return fault
        proofs = (self.contains(case, new, at, fills=fills) for case in cases)
        return next((proof for proof in proofs if proof is not None), None)

    def _cases(self, known: Known, facts: Facts, new: Schema) -> Iterable[Known] | None:
        """Split what is known into cases that leave nothing out; None where it cannot be split."""
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
        said = new.keywords()
        fills_here = fills and not _FILLED_BESIDE & said.keys()
        goal = assertions.Goal(self, known, facts, new, said, at, fills_here)
        for word, rule in assertions.RULES.items():
            if word in said and (fault := rule(goal)) is not None:
                return fault
        for word, prove in _COMBINED.items():
            if word in said and (fault := prove(self, goal, fills=fills)) is not None:
                return fault
        return next((_unlike(goal, word) for word in _OPAQUE if word in said and _matters(word, said, facts)), None)

    def _refuted(self, known: Known, facts: Facts) -> Proof:
        """Give None where there can be no instance: as for a proof."""
        if not facts.types or facts.values == [] or assertions.is_contradiction(self, facts):
            return None
        for excluded in facts.excluded:
            rest = Known(known.parts, (), known.used)
            if self.contains(rest, excluded, "") is None:
                return None
        for choice in facts.choices:
            if all(self.impossible(case) for case in _cases_of(known, choice)):
                return None
        return Fault("", "there may be instances", "POSSIBLE")


def _cases_of(known: Known, choice: Choice) -> Iterator[Known]:
    return (known.also(*holds, excluded=fails, used=choice.key) for holds, fails in choice.cases)


def _matters(word: str, said: dict[str, Any], facts: Facts) -> bool:
    """Say whether a keyword that is only compared as it is written can refuse anything here."""
    kind = _KIND_OF.get(word)
    return said[word] is not True and (kind is None or kind in facts.types)


def _unlike(goal: assertions.Goal, word: str) -> Fault:
    return Fault(f"{goal.at}/{word}", f"`{word}` cannot be compared where the schemas differ", "NOT_COMPARABLE")


def _prove_reference(prover: Prover, goal: assertions.Goal, *, fills: bool) -> Proof:
    target = goal.new.document.resolve(goal.said["$ref"])
    if target is None:
        return _unlike(goal, "$ref")
    return prover.contains(goal.known, target, f"{goal.at}/$ref", fills=fills and _is_alone(goal, "$ref"))


def _is_alone(goal: assertions.Goal, word: str) -> bool:
    """Say whether nothing stands beside a keyword that a member filled in behind it might break."""
    return not goal.said.keys() - _COMMENTS - {word}


def _prove_all(prover: Prover, goal: assertions.Goal, *, fills: bool) -> Proof:
    for number, raw in enumerate(goal.said["allOf"]):
        fault = prover.contains(goal.known, goal.new.inner(raw), f"{goal.at}/allOf/{number}")
        if fault is not None:
            return fault
    return None


def _prove_any(prover: Prover, goal: assertions.Goal, *, fills: bool) -> Proof:
    fills = fills and _is_alone(goal, "anyOf")
    for number, raw in enumerate(goal.said["anyOf"]):
        if prover.contains(goal.known, goal.new.inner(raw), f"{goal.at}/anyOf/{number}", fills=fills) is None:
            return None
    return Fault(f"{goal.at}/anyOf", "no branch takes all that was taken before", "COMBINED_TYPE_SUBSCHEMAS_CHANGED")


def _prove_one(prover: Prover, goal: assertions.Goal, *, fills: bool) -> Proof:
    branches = [goal.new.inner(raw) for raw in goal.said["oneOf"]]
    fills = fills and _is_alone(goal, "oneOf")
    for number, branch in enumerate(branches):
        others = [other for other in branches if other is not branch]
        # What was filled in must not make it one of the others too.
        is_apart = fills and all(prover.impossible(Known((branch, other))) for other in others)
        if prover.contains(goal.known, branch, f"{goal.at}/oneOf/{number}", fills=is_apart) is None and all(
            prover.impossible(goal.known.also(other)) for other in others
        ):
            return None
    return Fault(f"{goal.at}/oneOf", "not exactly one branch takes what was taken", "COMBINED_TYPE_SUBSCHEMAS_CHANGED")


def _prove_not(prover: Prover, goal: assertions.Goal, *, fills: bool) -> Proof:
    if prover.impossible(goal.known.also(goal.new.inner(goal.said["not"]))):
        return None
    return Fault(f"{goal.at}/not", "refuses what was taken before", "NOT_TYPE_NARROWED")


def _prove_condition(prover: Prover, goal: assertions.Goal, *, fills: bool) -> Proof:
    condition = goal.new.inner(goal.said["if"])
    cases = {"then": goal.known.also(condition), "else": goal.known.also(excluded=[condition])}
    for word, case in cases.items():
        if word not in goal.said or prover.impossible(case):
            continue
        fault = prover.contains(case, goal.new.inner(goal.said[word]), f"{goal.at}/{word}")
        if fault is not None:
            return fault
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
