"""Cases that measure nodes: idle memory, the first session, handshakes."""

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from bench.crowd import AT_A_TIME, Crowd, load_credentials
from bench.pair.case import Case, Effort, Figures, Sample
from bench.pair.forwards import direct, exchange
from bench.pair.site import Site, cpu
from p2pnet import pki
from p2pnet.identity import Credentials, Identity, Role
from p2pnet.testing.processes import ProcessError
from p2pnet.wire.address import parse_host_port

SETTLE = 1.0  # seconds after its start in which a node still works on its own
AFTER_HANDSHAKES = 0.05  # seconds for acknowledgements and new connection IDs
KIB = 1024


def memory(pid: int) -> dict[str, int]:
    """Return the resident and the proportional set size of a process in bytes (Linux)."""
    fields = (
        line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    sizes = {name: int(size) * KIB for name, size, *_ in fields}
    return {"rss": sizes["Rss:"], "pss": sizes["Pss:"]}


class Memory(Case):
    """Memory of each role while a session idles."""

    share = 0.0

    def prepare(self, site: Site, effort: Effort) -> None:
        """Open the session."""
        exchange(direct(site).address, 1)
        time.sleep(SETTLE)

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Read the memory of each role in megabytes."""
        nodes = {"agent": direct(site).agent, "connector": site.connector, "relay": site.relay}
        found: dict[str, float] = {}
        for name, node in nodes.items():
            for pid in node.family():
                for kind, size in memory(pid).items():
                    figure = f"{name}_{kind}_MB"
                    found[figure] = found.get(figure, 0.0) + size / 1e6
        return Sample(found=found)

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """Return the figures of the only turn."""
        (sample,) = samples
        return sample.found


class Cold(Case):
    """The first connection of an Agent that just started: a session's set-up.

    :param path: how the Agent chooses its paths.
    """

    share = 0.5

    def __init__(self, path: str) -> None:
        self._path = path

    def prepare(self, site: Site, effort: Effort) -> None:
        """Open a session, because the Connector's first session costs more."""
        self.measure(site, effort)

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Start an Agent, and time from connect() to the first byte of a response."""
        way = site.agent(self._path)
        try:
            time.sleep(SETTLE)
            used = cpu(way.processes)
            elapsed = exchange(way.address, 1)
            return Sample([elapsed], cpu(way.processes) - used)
        finally:
            way.agent.stop()
            site.deployment.processes.remove(way.agent)

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """Return the time and the processor time in milliseconds."""
        (sample,) = samples
        return {"ms": sample.times[0] * 1e3, "cpu_ms": sample.cpu * 1e3}


class Handshakes(Case):
    """Nodes that connect to the Intermediate and get its welcome.

    :param known: whether all nodes have the same certificate, as a node that returns.
    """

    def __init__(self, *, known: bool) -> None:
        self._known = known
        self._crowds: dict[Site, tuple[Crowd, Iterator[Credentials]]] = {}

    def prepare(self, site: Site, effort: Effort) -> None:
        """Connect some nodes, because an Intermediate's first handshakes cost more."""
        site.deployment.issue(Role.AGENT, "crowd")
        credentials = load_credentials(site.deployment.certs, "crowd")
        address = parse_host_port(site.deployment.intermediates[0])
        crowd = Crowd(credentials, address, version=site.tree.version)
        crowd.connect(AT_A_TIME)
        crowd.leave()
        newcomers = itertools.repeat(credentials) if self._known else _nodes(site)
        self._crowds[site] = crowd, newcomers

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Connect nodes, measure the Intermediate's processor time, and disconnect them."""
        crowd, newcomers = self._crowds[site]
        nodes = list(itertools.islice(newcomers, effort.nodes))
        processes = site.relay.family()
        used, before = cpu(processes), crowd.ready
        crowd.connect(len(nodes), nodes)
        crowd.idle(AFTER_HANDSHAKES)
        used, done = cpu(processes) - used, crowd.ready - before
        crowd.leave()
        crowd.idle(AFTER_HANDSHAKES)
        if done < len(nodes):
            raise ProcessError(f"{len(nodes) - done} of {len(nodes)} nodes could not connect")
        return Sample(found={"per_cpu_second": done / used})

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """Return handshakes per second of the Intermediate's processor time."""
        (sample,) = samples
        return sample.found


def _nodes(site: Site) -> Iterator[Credentials]:
    """Yield Agents of the site's realm, each with a certificate of its own."""
    authority, key = pki.load_authority(site.deployment.certs)
    for number in itertools.count():
        certificate, own_key = pki.issue(authority, key, Role.AGENT, f"node{number}")
        yield Credentials(
            Identity.from_certificate(certificate), certificate, (), own_key, authority,
            authority.public_bytes(Encoding.PEM),
        )  # fmt: skip
