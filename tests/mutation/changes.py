"""The small wrong changes that can be made to a module's source, each with a name that survives moved lines."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
REMOVED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Delete, ast.If, ast.For, ast.While, ast.Continue, ast.Break)

Make = Callable[[], ast.AST]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong change: its name, and the module with it."""

    name: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module.

    Left alone are docstrings, annotations, log calls, texts, and the module's tuning values, which tests use by name.
    """
    tree = ast.parse(source)
    counted: Counter[str] = Counter()
    for path, where in _places(tree, (), ""):
        before = _at(tree, path)
        for after in _changed(before):
            change = f"{where}: `{_shown(before)}` -> `{_shown(after)}`"
            counted[change] += 1
            name = change if counted[change] == 1 else f"{change} #{counted[change]}"
            yield Mutant(name, _with(tree, path, after))


def lies_in(name: str, functions: Sequence[str]) -> bool:
    """Return whether the mutant of this name lies in one of these functions or classes, if there are any."""
    where = f"{name.partition(':')[0]}."
    return not functions or any(where.startswith(f"{function}.") for function in functions)


Path = tuple[tuple[str, int | None], ...]


def _places(node: ast.AST, path: Path, where: str) -> Iterator[tuple[Path, str]]:
    """Yield the path to each node that may be changed, and the function or class that it lies in."""
    if _is_left_alone(node) or (not where and _is_tuning_value(node)):
        return
    yield path, where or "module"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        where = f"{where}.{node.name}" if where else node.name
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(node, ast.Call):
            continue
        for number, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST):
                yield from _places(child, (*path, (name, number if isinstance(value, list) else None)), where)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("__slots__", "__all__"):
        return True
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return True
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger.")


def _is_tuning_value(node: ast.AST) -> bool:
    """Return whether the node is as ``BATCH_BYTES = 256 * 1024``, or a tuple of numbers."""
    if not isinstance(node, ast.Assign):
        return False
    parts = [part for part in ast.walk(node.value) if isinstance(part, ast.expr)]
    return all(isinstance(part, ast.Constant | ast.BinOp | ast.UnaryOp | ast.Tuple) for part in parts)


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what the node itself may be changed to."""
    if (changed := _changed_value(node)) is not None:
        yield changed
    if isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
        yield _replaced(node, test=ast.UnaryOp(ast.Not(), node.test))
    if _may_be_removed(node):
        yield ast.Pass()


def _changed_value(node: ast.AST) -> ast.AST | None:
    match node:
        case ast.Compare(ops=[operator]):
            return _replaced(node, ops=[COMPARISONS[type(operator)]()])
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in OPERATORS:
            return _replaced(node, op=OPERATORS[type(operator)]())
        case ast.BoolOp(op=operator):
            return _replaced(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            return operand
        case ast.Constant(value=bool() | int() | float() as value):
            return ast.Constant(not value if isinstance(value, bool) else value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS:
            return _replaced(node, func=ast.Name(FUNCTIONS[name], ast.Load()))
        case ast.Return(value=value) if value is not None and ast.unparse(value) not in ("None", "True", "False"):
            return ast.Return(ast.Constant(None))
    return None


def _may_be_removed(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    return isinstance(node, REMOVED) and not _is_log(node)


def _is_log(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and _is_left_alone(node.value)


def _replaced(node: ast.AST, **fields: object) -> ast.AST:
    made = deepcopy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _at(tree: ast.AST, path: Path) -> ast.AST:
    node = tree
    for name, number in path:
        value = getattr(node, name)
        node = value if number is None else value[number]
    return node


def _with(tree: ast.Module, path: Path, node: ast.AST) -> str:
    made = deepcopy(tree)
    *before, (name, number) = path
    parent = _at(made, tuple(before))
    if number is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[number] = node
    return ast.unparse(ast.fix_missing_locations(made))


def _shown(node: ast.AST) -> str:
    """Show a node on one line: of what holds statements, the line that begins it."""
    lines = ast.unparse(ast.fix_missing_locations(deepcopy(node))).splitlines() or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0]} …"
