"""Where p2pnet touches aioquic at all, as far as the syntax can tell."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import aioquic
from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery
from aioquic.quic.stream import QuicStreamReceiver, QuicStreamSender
from twisted.trial.unittest import SynchronousTestCase

import p2pnet
import p2pnet.quic.multiplexer  # and with it all of p2pnet.quic


def aioquic_names() -> set[str]:
    """Every private name that aioquic gives to an attribute or a method."""
    directory = Path(inspect.getfile(aioquic)).parent
    trees = [ast.parse(path.read_text()) for path in sorted(directory.rglob("*.py"))]
    names = {node.attr for tree in trees for node in private_attributes(tree)}
    functions = (node for tree in trees for node in ast.walk(tree))
    return names | {node.name for node in functions if isinstance(node, ast.FunctionDef)}


def private_attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every `._name` that is read, written or called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
            yield node


TOUCHING = (
    "engine.py",
    "migration.py",
    "recovery.py",
    "restriction.py",
    "strict.py",
    "tls.py",
    "pacer.py",
    "memory.py",
    "fast/*.py",
)
"""What in p2pnet/quic/ may touch private names of aioquic."""


class BoundaryTests(SynchronousTestCase):
    """Where aioquic is touched, as far as the syntax can tell."""

    def setUp(self) -> None:
        top = Path(p2pnet.__file__).parent
        self.trees = {path: ast.parse(path.read_text()) for path in sorted(top.rglob("*.py"))}
        paths = [path for pattern in TOUCHING for path in (top / "quic").glob(pattern)]
        self.touching = [self.trees.pop(path) for path in paths]

    def test_only_p2pnet_quic_imports_aioquic(self) -> None:
        """Everything else goes through it."""
        importers = set()
        for path, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                else:
                    names = [getattr(node, "module", None) or ""]
                if any(name.split(".")[0] == "aioquic" for name in names):
                    importers.add(path.relative_to(Path(p2pnet.__file__).parent).parts[0])
        self.assertEqual({"quic"}, importers)

    def test_only_the_engines_touch_private_names_of_aioquic(self) -> None:
        """Others touch such a name on `self` alone, and no other class of ours is aioquic's."""
        theirs = aioquic_names()
        found = [
            f"{path.name}:{node.lineno} {ast.unparse(node)}"
            for path, tree in self.trees.items()
            for node in private_attributes(tree)
            if node.attr in theirs and ast.unparse(node.value) not in ("self", "cls", "super()")
        ]
        self.assertEqual([], found)
        for parent, module in (
            (QuicConnection, "p2pnet.quic.strict"),
            (QuicPacketRecovery, "p2pnet.quic.recovery"),
            (tls.Context, "p2pnet.quic.tls"),
            (QuicPacketPacer, "p2pnet.quic.pacer"),
            (QuicStreamSender, "p2pnet.quic.fast.streams"),
            (QuicStreamReceiver, "p2pnet.quic.fast.streams"),
        ):
            self.assertEqual({module}, {child.__module__ for child in parent.__subclasses__()})

    def test_every_private_name_that_they_touch_has_a_test(self) -> None:
        """Or at least it is mentioned."""
        here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_contract*"))
        names = {node.attr for tree in self.touching for node in private_attributes(tree)}
        touched = names & aioquic_names()
        self.assertEqual([], sorted(name for name in touched if name not in here))
