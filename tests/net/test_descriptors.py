"""Tests of p2pnet.net.descriptors: the limit of open files, raised in a process of its own."""

import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from p2pnet.net.descriptors import for_targets

PROGRAM = """
import resource
from p2pnet.net.descriptors import raise_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100 if {lowered} else hard))
print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


class LimitTests(SynchronousTestCase):
    """What a process may open."""

    def limits(self, *, lowered: bool) -> list[int]:
        """The limit that the function returns, and the one that there is afterwards."""
        if not sys.platform.startswith("linux"):
            raise SkipTest("the limit is raised where Twisted waits with epoll or poll")
        program = PROGRAM.format(lowered=lowered)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        return [int(number) for number in done.stdout.split()]

    def test_the_soft_limit_is_raised_to_the_hard_one(self) -> None:
        """Which says how many connections to targets there may be."""
        self.assertEqual([100, 100], self.limits(lowered=True))

    def test_connections_to_targets_get_the_most_of_it(self) -> None:
        """A small limit is shared, too."""
        self.assertEqual([75, 768, 65280], [for_targets(limit) for limit in (100, 1024, 65536)])

    def test_a_limit_is_no_larger_than_one_process_can_use(self) -> None:
        """The hard limit of a machine may be a billion."""
        returned, soft = self.limits(lowered=False)
        self.assertEqual(returned, soft)
        self.assertLessEqual(returned, 65536)
