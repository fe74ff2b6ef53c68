"""The command `p2pnet`: a group that imports a subcommand only for its use.

The import of aioquic and cryptography takes longer than the print of a help text should. So a table
here has the names and short help texts of the subcommands.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import click

from p2pnet import __version__

COMMANDS = {
    "demo": ("p2pnet.cli.demo", "demo", "Run a whole realm on this machine and try it."),
    "pki": ("p2pnet.cli.pki", "pki", "Create a realm and issue certificates to its nodes."),
}
"""The module, the attribute in it and the short help of each subcommand, by its name."""


class LazyGroup(click.Group):
    """A group of the commands in `COMMANDS` whose modules are installed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands whose modules are installed, without importing any."""
        return [name for name, (module, _, _) in COMMANDS.items() if find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of a name, None if there is none."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, attribute, _help = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands with their short help from `COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pnet")
def main() -> None:
    """Reach a private service behind NAT from anywhere, directly whenever possible."""


if __name__ == "__main__":
    main()
