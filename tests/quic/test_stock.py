"""The tests of connections once more, with aioquic's own packet code instead of the fast one."""

import importlib
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.profile import STOCK
from tests.quic import harness

MODULES = (
    "contract",
    "contract_migration",
    "contract_recovery",
    "flow_control",
    "migration",
    "multiplexer",
    "packet_size",
    "tls",
    "transfer",
)


class OnStock(SynchronousTestCase):
    """Has settings name the stock engine."""

    def setUp(self) -> None:
        self.patch(harness, "ENGINE", STOCK)
        super().setUp()


def on_stock(module: ModuleType) -> dict[str, type]:
    """Each test case of a module with the stock engine."""
    found = [case for case in vars(module).values() if isinstance(case, type)]
    return {
        f"Stock{case.__name__}": type(
            f"Stock{case.__name__}", (OnStock, case), {"__module__": __name__}
        )
        for case in found
        if issubclass(case, SynchronousTestCase) and case.__module__ == module.__name__
    }


for _name in MODULES:
    globals().update(on_stock(importlib.import_module(f"tests.quic.test_{_name}")))
