"""OpenSSH's port forwarding, with a server of its own that no file of the system is changed for."""

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from bench.tunnel import Tunnel, Unavailable, await_listener, free_port
from p2pnet.testing.processes import Process
from p2pnet.wire.address import Address

SBIN = "/usr/sbin:/usr/local/sbin"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{SBIN}")
PRIVILEGE_SEPARATION = Path("/run/sshd")  # sshd run as root wants it; made where no init did
SERVER = """
ListenAddress {address}:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
"""
CLIENT = (
    "IdentitiesOnly yes", "IdentityAgent none", "BatchMode yes", "ExitOnForwardFailure yes",
    "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "LogLevel ERROR",
)  # fmt: skip


class Ssh(Tunnel):
    """``ssh -L``."""

    name = "ssh -L"

    @classmethod
    def prepare(cls) -> str:
        """See whether it is there."""
        if SSHD is None or shutil.which("ssh") is None:
            raise Unavailable("not installed (Debian: openssh-server, openssh-client)")
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        done = subprocess.run(["ssh", "-V"], stderr=subprocess.PIPE, text=True)
        return done.stderr.split(",")[0].removeprefix("OpenSSH_")

    def start(self, target: Address) -> Address:
        """Make keys, and start the server and the client."""
        near, far = self.ends.near, self.ends.far
        for key in ("host_key", "user_key"):
            command = ["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key]
            Process("ssh-keygen", command, self.directory).start().wait()
        there, here = (far.address, free_port()), (near.address, free_port())
        config = self.directory / "sshd_config"
        config.write_text(SERVER.format(address=there[0], port=there[1], directory=self.directory))
        server = self.run("sshd", [SSHD or "", "-D", "-e", "-f", str(config)], far)
        await_listener(server, near, there)
        options = [word for option in CLIENT for word in ("-o", option)]
        client = self.run(
            "ssh",
            [
                "ssh", "-NF", "none", *options, "-i", f"{self.directory}/user_key",
                "-p", str(there[1]), "-L", f"{here[0]}:{here[1]}:{target[0]}:{target[1]}",
                f"{getpass.getuser()}@{there[0]}",
            ],
            near,
        )  # fmt: skip
        await_listener(client, near, here)
        return here
