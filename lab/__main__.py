"""``python -m lab``: sessions between real NATs, in network namespaces of this machine."""

import click

from lab.commands.cells import matrix, run
from lab.commands.check import check_command, clean
from lab.commands.demo import demo
from lab.commands.ladder import ladder
from lab.commands.sim import sim
from lab.commands.soak import soak
from lab.commands.survive import survive
from lab.commands.switch import switch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lab() -> None:
    """Try sessions between real NATs on this machine.

    Hosts, links and NATs are made of network namespaces and vanish at the end. Needs Linux, nft
    and ip, but not root where users may make namespaces.
    """


for command in (run, matrix, check_command, demo, survive, switch, ladder, soak, sim, clean):
    lab.add_command(command)


if __name__ == "__main__":
    lab(prog_name="python -m lab")
