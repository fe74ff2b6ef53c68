"""``python -m lab demo``: the demonstration of `p2pnet demo`, behind two real NATs."""

import click

from lab.commands.common import reported
from lab.namespaces import acquire
from lab.nat import BEHAVIORS
from lab.stage import BehindNats
from p2pnet.cli.common import json_option
from p2pnet.cli.demo import perform, size_option


@click.command()
@click.option(
    "--nat", required=True, metavar="AGENT:CONNECTOR",
    help="What they are behind, such as port-restricted:port-restricted.",
)  # fmt: skip
@size_option
@json_option
def demo(nat: str, size: int, as_json: bool) -> None:
    """Download a file through the three roles, Agent and Connector behind NATs of namespaces."""
    agent, _, connector = nat.partition(":")
    if agent not in BEHAVIORS or connector not in BEHAVIORS:
        known = ", ".join(BEHAVIORS)
        raise click.BadParameter(f"write AGENT:CONNECTOR, each one of {known}", param_hint="--nat")
    with reported():
        acquire()
        perform(BehindNats(BEHAVIORS[agent], BEHAVIORS[connector]), size, as_json)
