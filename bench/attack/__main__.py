"""Attacks on real and simulated nodes: bound, measured value, and whether the bound holds.

::

    python -m bench.attack                 everything; ten minutes of it are all attacks at once
    python -m bench.attack padding close blackhole
    python -m bench.attack all --minutes 1
    python -m bench.attack --brief         one minute of all attacks at once

Floods come over loopback at 2,000 packets a second, from another core than the Intermediate's.
Meanwhile nodes connect, one after the other, and the relayed transfers of two agents go on. The
attackers of "all" do so at once, each at its full rate, in one second of three, beside the
transfers of 20 agents. Exits with 1 if a bound does not hold.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.attack import storm
from bench.attack.flood import KINDS
from bench.attack.simulated import SIMULATED
from bench.attack.site import Site
from bench.report import Row, number, parser, print_error, show

RATE = 2000  # datagrams a second
CONNECTS = 20
SOON = 1.0  # seconds in which the median of CONNECTS is connected
AMPLIFICATION = 3.0  # RFC 9000 section 8.1
AGENTS, MANY = 2, 20
QUIET = 3.0  # seconds of an undisturbed realm
FORGOTTEN = 30.0  # seconds, then nothing is left of an attack
MEMORY = 1.1  # times what it was before
DUTY = 1 / 3  # of the time
COMEBACK, ALL = "comeback", "all"
FLOODS = {
    "junk": "T4: Initials that cannot be decrypted",
    "padding": "T4: Initials of PADDING alone",
    "close": "T4: ClientHello and CONNECTION_CLOSE",
    "far": "T4: Initials with CRYPTO far ahead",
    "hellos": "T4: handshakes that are begun, from 63 networks",
    "proven": "T4: the same, Retry answered, from four /24",
    "neighbor": "T4: the same from the /24 of the nodes",
    "botnet": "T4: the same from 63 networks",
}
MEBIBYTE = 1 << 20


def flood(site: Site, kind: str) -> Row:
    """Connect nodes while a flood of a kind comes, and the transfers go on."""
    began, used = time.monotonic(), site.relay.cpu_seconds()
    time.sleep(QUIET)
    idle = (site.relay.cpu_seconds() - used) / (time.monotonic() - began)
    lost, carried, used = site.lost, site.bytes, site.relay.cpu_seconds()
    site.take_slowest()
    with site.attacked([kind], f"--rate={RATE}") as attackers:
        times = [site.connect() for _ in range(CONNECTS)]
    did = attackers[kind]
    cost = (site.relay.cpu_seconds() - used - idle * did["seconds"]) / did["sent"]
    lost, carried = site.lost - lost, site.bytes - carried
    back = did["bytes_received"] / did["bytes_sent"]
    median = statistics.median(times)
    return {
        "attack": FLOODS[kind],
        "bound": f"median < {SOON:.0f} s, 0 lost, <= {AMPLIFICATION} x back",
        "measured": f"median {number(median)} s, most {number(max(times))}; {lost} lost, "
        f"slowest block {number(site.take_slowest())} s; {number(back)} x back; "
        f"{number(cost * 1e6)} us each, {number(did['sent'] / did['seconds'])}/s",
        "holds": median < SOON and lost == 0 and carried > 0 and back <= AMPLIFICATION,
    }


def all_at_once(site: Site, minutes: float) -> Iterator[Row]:
    """Let all attackers come in a third of the time, then see what is lost and what is left."""
    time.sleep(QUIET)
    before = peak = site.resident()
    kinds = [*(kind for kind in KINDS if kind != "botnet"), "members"]
    lost, carried, times = site.lost, site.bytes, list[float]()
    end = time.monotonic() + 60 * minutes
    with site.attacked(kinds, f"--duty={DUTY}") as attackers:
        while time.monotonic() < end:
            times.append(site.connect())
            now = site.resident()
            peak = {role: max(size, now[role]) for role, size in peak.items()}
            time.sleep(1.0)
    slowest, carried = site.take_slowest(), site.bytes - carried
    taken = sum(did["cpu"] / did["seconds"] for did in attackers.values())
    sent = sum(did["sent"] / did["seconds"] for did in attackers.values())
    time.sleep(FORGOTTEN)
    lost, median = site.lost - lost, statistics.median(times)
    yield {
        "attack": f"all at once, {number(minutes)} min, {MANY} agents",
        "bound": f"0 lost, median < {SOON:.0f} s",
        "measured": f"{lost} lost; {number(carried / MEBIBYTE)} MiB carried, slowest block "
        f"{number(slowest)} s; {len(times)} connects, median {number(median)} s, most "
        f"{number(max(times))}; attackers {number(taken)} cores, {number(sent)}/s",
        "holds": lost == 0 and carried > 0 and median < SOON,
    }
    for role, size in site.resident().items():
        sizes = (number(each / MEBIBYTE) for each in (before[role], peak[role], size))
        yield {
            "attack": f"all at once: memory of the {role}",
            "bound": f"{MEMORY} x before",
            "measured": "{} MiB before, {} at most, {} after".format(*sizes),
            "holds": size <= MEMORY * before[role],
        }


def rows(names: Sequence[str], minutes: float) -> Iterator[Row]:
    """A row for each attack, and some for all at once."""
    for name in names:
        if name in SIMULATED:
            print_error(name)
            yield SIMULATED[name].row()
    if COMEBACK in names:
        print_error(COMEBACK)
        yield storm.row()
    floods = [name for name in names if name in FLOODS]
    if floods:
        with tempfile.TemporaryDirectory() as directory, Site(Path(directory), AGENTS) as site:
            for name in floods:
                print_error(name)
                yield flood(site, name)
    if ALL in names:
        print_error(ALL)
        with tempfile.TemporaryDirectory() as directory, Site(Path(directory), MANY) as site:
            yield from all_at_once(site, minutes)


def main() -> None:
    """Attack, print the table, and exit with 1 if a bound does not hold."""
    options = parser(__doc__)
    every = [*SIMULATED, COMEBACK, *FLOODS, ALL]
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of: {' '.join(every)}")
    options.add_argument("--brief", action="store_true", help="a minute of all attacks at once")
    options.add_argument("--minutes", type=float, help="of all attacks at once (10)")
    arguments = options.parse_args()
    unknown = set(arguments.names) - set(every)
    if unknown:
        options.error(f"no such attack: {' '.join(sorted(unknown))}")
    minutes = arguments.minutes or (1.0 if arguments.brief else 10.0)
    holds = []

    def judged() -> Iterator[Row]:
        for row in rows(arguments.names or every, minutes):
            holds.append(row["holds"])
            yield row

    show({f"Attacks, load average {number(os.getloadavg()[0])}": judged()}, arguments.json)
    sys.exit(not all(holds))


if __name__ == "__main__":
    main()
