"""Tests of p2pnet.core.intermediate.registry."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2pnet.core.intermediate.registry import MemoryDirectory
from p2pnet.interfaces import IServiceDirectory

REALMS, SERVICES, KEYS = ("here", "there"), ("web", "dns", "ssh"), range(4)


class Model(RuleBasedStateMachine):
    """The directory beside a plain dict, in which later registrations come later."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = MemoryDirectory()
        self.model: dict[tuple[str, int], tuple[str, ...]] = {}

    @rule(
        realm=st.sampled_from(REALMS),
        services=st.lists(st.sampled_from(SERVICES), unique=True).map(tuple),
        key=st.sampled_from(KEYS),
    )
    def register(self, realm: str, services: tuple[str, ...], key: int) -> None:
        """Serve exactly these."""
        self.directory.register(realm, services, key)
        self.model.pop((realm, key), None)
        self.model[realm, key] = services

    @rule(realm=st.sampled_from(REALMS), key=st.sampled_from(KEYS))
    def unregister(self, realm: str, key: int) -> None:
        """Serve nothing."""
        self.directory.unregister(realm, key)
        self.model.pop((realm, key), None)

    @invariant()
    def it_knows_the_same(self) -> None:
        """Who serves what in which realm, oldest first, and nothing more."""
        offered = set()
        for realm in REALMS:
            for service in SERVICES:
                serving = [
                    key
                    for (where, key), services in self.model.items()
                    if where == realm and service in services
                ]
                assert self.directory.lookup(realm, service) == serving
                offered |= {(realm, service)} if serving else set()
        assert len(self.directory) == len(offered)


class MemoryDirectoryTests(SynchronousTestCase):
    """The registry of one Intermediate."""

    def test_it_is_a_service_directory(self) -> None:
        """As the interface has it."""
        self.assertTrue(verifyObject(IServiceDirectory, MemoryDirectory()))

    def test_it_agrees_with_a_plain_dict(self) -> None:
        """Whatever is registered and unregistered, in any order."""
        run_state_machine_as_test(Model, settings=settings(max_examples=60))

    def test_nothing_is_known_of_an_unknown_service(self) -> None:
        """Nor is asking remembered."""
        directory = MemoryDirectory()
        self.assertEqual([], directory.lookup("here", "web"))
        self.assertEqual(0, len(directory))
