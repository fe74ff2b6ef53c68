"""``p2pnet bench``: what a forwarded connection comes to on this machine.

The peers that p2pnet is compared with are other people's programs, of some hundred megabytes; they
stay in the checkout, where ``make bench`` measures the same and more beside them.
"""

import click

from p2pnet.cli.common import json_option, reported
from p2pnet.lab.forwarding import Load, cases
from p2pnet.lab.report import alternate, show
from p2pnet.lab.tunnel import TUNNELS


@click.command()
@json_option
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), metavar="N")
@click.option(
    "--seconds", default=3.0, show_default=True, type=click.FloatRange(0.1), metavar="S",
    help="How long an upload lasts.",
)  # fmt: skip
def bench(as_json: bool, rounds: int, seconds: float) -> None:
    """Measure forwarded TCP connections on loopback: without p2pnet, directly, over the relay.

    Only the ratio of figures of the same run says something; machines differ, and change.
    """
    with reported():
        found = alternate(cases(TUNNELS, Load(seconds)), rounds)
    if not found:
        raise click.ClickException("nothing could be measured")
    rows = [{"tunnel": name, **figures} for name, figures in found.items()]
    show({"A forwarded connection": rows}, as_json)
