"""The figures of the house are counted as they say."""

import ast
import json
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.house import trips
from bench.house.__main__ import BEFORE, CHECKOUT, GOALS, flat, measured_trips, sources
from bench.house.circles import circles
from bench.house.source import classes, largest, owners, terse

SOURCE = '''
class Child:
    """It is one."""

    __slots__ = ("slot",)

    def __init__(self, node: "Base", size: int, *, tell) -> None:
        self._node = node
        self.size, self.other = size, Grandchild(node)

class Grandchild:
    def __init__(self, node: Base | None) -> None:
        self.up = node

class Narrow(Protocol):
    """What a child may know of a node, which is little."""

class Free:
    def __init__(self, node: Narrow) -> None:
        self._node = node

class Base(Narrow):
    pass

class Node(Base):
    def start(self) -> None:
        self.children = [Child(self, 1, tell=print)]
        self.free = Free(self)

@dataclasses.dataclass(frozen=True)
class Value:
    one: int
    two: int = 0
    kind: ClassVar[str] = ""
'''


class SourceTests(SynchronousTestCase):
    """What the syntax says."""

    def setUp(self) -> None:
        self.tree = ast.parse(SOURCE)
        self.classes = list(classes(self.tree, "a.py"))

    def test_attributes_are_counted_wherever_they_are_set(self) -> None:
        """By methods, as slots, and as fields of a value."""
        sizes = {place: size for size, place in largest(self.classes)}
        self.assertEqual((4, 2, 2), tuple(sizes[f"a.py {name}"] for name in
                                          ("Child", "Node", "Value")))  # fmt: skip

    def test_an_attribute_that_holds_the_owner_is_found(self) -> None:
        """Also where a child passes the owner on; one behind a Protocol is none."""
        self.assertEqual(["a.py Child._node", "a.py Grandchild.up"], owners(self.classes))

    def test_docstrings_of_few_words_are_found(self) -> None:
        """Those of public things."""
        self.assertEqual(["2 Child"], terse(self.tree))

    def test_import_circles_are_counted(self) -> None:
        """One import would have to go."""
        with tempfile.TemporaryDirectory() as directory:
            package = Path(directory) / "p2pnet"
            package.mkdir()
            for name, text in (("__init__", ""), ("a", "import p2pnet.b"), ("b", "")):
                (package / f"{name}.py").write_text(text)
            self.assertEqual((0, []), circles(Path(directory)))
            (package / "b.py").write_text("import p2pnet.a")
            number, (named,) = circles(Path(directory))
        self.assertEqual((1, "p2pnet: "), (number, named[: len("p2pnet: ")]))


class FigureTests(SynchronousTestCase):
    """What is measured of this checkout has its figures."""

    def test_every_trip_is_measured(self) -> None:
        """Each enters several files, and none returns to the file that it just was in."""
        found = measured_trips(CHECKOUT)
        self.assertEqual(set(trips.TRIPS), set(found))
        for name, trip in found.items():
            self.assertTrue(1 < trip["files"] <= trip["moves"] <= trip["calls"], name)
        goals = {name for name in GOALS if name.startswith(trips.TRIPS)}
        self.assertEqual(goals, set(flat(found)))

    def test_every_goal_has_a_figure_of_before(self) -> None:
        """And every figure of the source is compared."""
        before = json.loads(BEFORE.read_text())
        self.assertLessEqual(set(GOALS), set(before["figures"]))
        self.assertLessEqual(set(sources(CHECKOUT)["figures"]), set(before["figures"]))
        self.assertEqual(set(trips.TRIPS), set(before["trips"]))
