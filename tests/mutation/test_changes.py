import pytest

from tests.mutation.changes import lies_in, mutants


def names(source):
    return [mutant.name for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("x = a < b", ["module: `a < b` -> `a <= b`"]),
        ("x = a + b", ["module: `a + b` -> `a - b`"]),
        ("x = not a", ["module: `not a` -> `a`"]),
        ("x = a and b", ["module: `a and b` -> `a or b`"]),
        ("x = f(3)", ["module: `3` -> `4`"]),
        ("x = f(True)", ["module: `True` -> `False`"]),
        ("x = min(a, b)", ["module: `min(a, b)` -> `max(a, b)`"]),
        ("x.y = z", ["module: `x.y = z` -> `pass`"]),
        ("def f():\n    return a", ["f: `return a` -> `return None`"]),
        ("class C:\n    def f(self):\n        del a", ["C.f: `del a` -> `pass`"]),
        ("if a:\n    x = b", ["module: `if a: …` -> `if not a: …`", "module: `if a: …` -> `pass`"]),
        ("f(1, 1)", ["module: `f(1, 1)` -> `pass`", "module: `1` -> `2`", "module: `1` -> `2` #2"]),
    ],
)
def test_each_kind_of_change_has_a_name_without_a_line_number(source, changes):
    assert names(source) == changes


@pytest.mark.parametrize(
    "source", ['"""Text."""', "logger.info(1 + 2)", "__slots__ = (1,)", "def f(a: 1 | 2): pass", "X = 8 * 1024"]
)
def test_docstrings_logs_slots_annotations_and_tuning_values_are_left_alone(source):
    assert names(source) == []


def test_a_mutant_differs_from_its_module_in_one_place():
    [changed, *_] = mutants("x = a < b\ny = c")
    assert changed.source == "x = a <= b\ny = c"


def test_mutants_are_chosen_by_function_or_class():
    found = names("def f(): return a\ndef ff(): return a\nclass C:\n    def f(self): return a")
    chosen = {function: [name.partition(":")[0] for name in found if lies_in(name, (function,))] for function in "fC"}
    assert chosen == {"f": ["f"], "C": ["C.f"]}
    assert all(lies_in(name, ()) for name in found)
