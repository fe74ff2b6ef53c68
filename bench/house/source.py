"""Figures that the syntax trees of a checkout give: attributes, owners, docstrings."""

import ast
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

VALUES = ("NamedTuple", "Struct", "RoleConfig", "Report")
"""Names of bases whose subclasses have annotations as fields."""
PROTOCOL = "Protocol"
SELF = "self"
FEW_WORDS = 4  # a docstring of so few says nothing that the name does not say

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Ward(NamedTuple):
    """A call of a name with `self`, a parameter or an attribute as argument."""

    called: str
    position: int | str
    given: str


@dataclasses.dataclass(frozen=True)
class Class:
    """A class of the source.

    :ivar attributes: that its methods assign, its __slots__, and its fields if it is a value.
    :ivar stored: attributes that __init__ makes of a parameter, by the parameter's position and
        name.
    :ivar annotations: the names in each parameter's annotation.
    :ivar wards: the calls in its methods that get `self`, a parameter or an attribute.
    """

    name: str
    place: str
    bases: frozenset[str]
    attributes: frozenset[str]
    stored: dict[int | str, str]
    annotations: dict[int | str, frozenset[str]]
    wards: tuple[Ward, ...]


def modules(top: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every module below a directory, with its path."""
    for path in sorted(top.rglob("*.py")):
        yield path, ast.parse(path.read_text(), str(path))


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    """Every function in a module or class, methods and inner ones included."""
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            yield node


def classes(tree: ast.Module, place: str) -> Iterator[Class]:
    """Every class of a module; `place` names the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield _class(node, place)


def owners(found: Iterable[Class]) -> list[str]:
    """Attributes that hold an owner as a whole, as "place Class.attribute".

    An owner passes `self` to the constructor of another class, or that class passes it on, and the
    attribute keeps it; the parameter has the type of the owner or of a base. A Protocol is none.
    """
    known = list(found)
    by_name = {each.name: each for each in known}
    held: set[str] = set()
    waiting = [(each, SELF, _ancestry(each, by_name)) for each in known]
    while waiting:
        giver, given, types = waiting.pop()
        for ward in giver.wards:
            taker = _constructed(by_name.get(ward.called), by_name)
            if ward.given != given or taker is None or ward.position not in taker.stored:
                continue
            attribute = taker.stored[ward.position]
            place = f"{taker.place} {taker.name}.{attribute}"
            if place not in held and taker.annotations[ward.position] & types:
                held.add(place)
                names = {
                    attribute,
                    *(key for key in taker.stored if taker.stored[key] == attribute),
                }
                waiting += [(taker, name, types) for name in names if isinstance(name, str)]
    return sorted(held)


def terse(tree: ast.Module) -> list[str]:
    """Public modules, classes and functions whose docstring has few words, by line and name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode | ast.ClassDef | ast.Module):
            name = "" if isinstance(node, ast.Module) else f"{node.lineno} {node.name}"
            words = (ast.get_docstring(node) or "").split()
            if 0 < len(words) <= FEW_WORDS and not name.partition(" ")[2].startswith("_"):
                found.append(name)
    return found


def _ancestry(cls: Class, by_name: dict[str, Class]) -> set[str]:
    names, waiting = set(), [cls.name]
    while waiting:
        name = waiting.pop()
        if name in names or name not in by_name or PROTOCOL in by_name[name].bases:
            continue
        names.add(name)
        waiting += by_name[name].bases
    return names


def _constructed(cls: Class | None, by_name: dict[str, Class]) -> Class | None:
    """The class whose __init__ a call of `cls` runs."""
    seen: set[str] = set()
    while cls is not None and not cls.stored and cls.name not in seen:
        seen.add(cls.name)
        cls = next((by_name[base] for base in cls.bases if base in by_name), None)
    return cls


def _class(node: ast.ClassDef, place: str) -> Class:
    bases = frozenset(name for base in node.bases for name in _names(base))
    methods = [item for item in node.body if isinstance(item, FunctionNode)]
    attributes = {name for method in methods for name in _assigned(method)} | set(_slots(node))
    if bases & set(VALUES) or any(
        "dataclass" in _names(decorator) for decorator in node.decorator_list
    ):
        attributes |= set(_fields(node))
    stored: dict[int | str, str] = {}
    annotations: dict[int | str, frozenset[str]] = {}
    for method in methods:
        if method.name == "__init__":
            stored, annotations = _parameters(method)
    wards = tuple(ward for method in methods for ward in _wards(method))
    return Class(node.name, place, bases, frozenset(attributes), stored, annotations, wards)


def _names(node: ast.AST | None) -> set[str]:
    """All names in an expression, those within quoted annotations included."""
    found: set[str] = set()
    for item in ast.walk(node) if node is not None else ():
        if isinstance(item, ast.Name):
            found.add(item.id)
        elif isinstance(item, ast.Attribute):
            found.add(item.attr)
        elif isinstance(item, ast.Constant) and isinstance(item.value, str):
            found.add(item.value)
    return found


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == SELF


def _assigned(method: FunctionNode) -> Iterator[str]:
    for node in ast.walk(method):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and _is_self(node.value)
        ):
            yield node.attr


def _slots(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.Assign) and "__slots__" in _names(item.targets[0]):
            yield from (name for name in _names(item.value) if name != "__weakref__")


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if (
            isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and "ClassVar" not in _names(item.annotation)
        ):
            yield item.target.id


def _parameters(
    init: FunctionNode,
) -> tuple[dict[int | str, str], dict[int | str, frozenset[str]]]:
    """What __init__ stores of its parameters, and their annotations, by position and by name."""
    kept = {
        node.value.id: target.attr
        for node in ast.walk(init)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)
        for target in node.targets
        if isinstance(target, ast.Attribute) and _is_self(target.value)
    }
    positional = init.args.args[1:]
    stored: dict[int | str, str] = {}
    annotations: dict[int | str, frozenset[str]] = {}
    for position, argument in enumerate([*positional, *init.args.kwonlyargs]):
        keys: list[int | str] = [argument.arg]
        if position < len(positional):
            keys.append(position)
        for key in keys:
            if argument.arg in kept:
                stored[key] = kept[argument.arg]
                annotations[key] = frozenset(_names(argument.annotation))
    return stored, annotations


def _wards(method: FunctionNode) -> Iterator[Ward]:
    for node in ast.walk(method):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        arguments: list[tuple[int | str | None, ast.expr]] = [*enumerate(node.args)]
        arguments += [(keyword.arg, keyword.value) for keyword in node.keywords]
        for position, argument in arguments:
            if position is None:
                continue
            if isinstance(argument, ast.Name):
                yield Ward(called, position, argument.id)
            elif isinstance(argument, ast.Attribute) and _is_self(argument.value):
                yield Ward(called, position, argument.attr)


def largest(found: Iterable[Class]) -> list[tuple[int, str]]:
    """Number of attributes and place of each class, the largest first."""
    sizes = [(len(each.attributes), f"{each.place} {each.name}") for each in found]
    return sorted(sizes, reverse=True)
