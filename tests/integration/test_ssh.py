"""An SSH session through p2pnet: OpenSSH's server and client, which know nothing of it."""

import getpass
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from p2pnet.testing.processes import Deployment, Service
from tests.integration.test_http import (
    ANY_PORT,
    MEBIBYTE,
    TIMEOUT,
    DeploymentTestCase,
    free_port,
    listener_of,
    wait_for_output,
)

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
# sshd run as root chroots here before a login; where no init system runs nobody made it.
PRIVILEGE_SEPARATION = Path("/run/sshd")

SSHD_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
PidFile {directory}/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""

SSH_CONFIG = """
Host office
    HostName {host}
    Port {port}
    User {user}
    IdentityFile {directory}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    BatchMode yes
    ConnectTimeout 10
    StrictHostKeyChecking yes
    HostKeyAlias office
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile none
"""


def make_key(path: Path) -> str:
    """An SSH key without a passphrase; returns the public half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text()


class SshTests(DeploymentTestCase):
    """A server whose host key the client knows, and a user who logs in with a key."""

    if SSHD is None or shutil.which("ssh") is None or shutil.which("scp") is None:
        skip = "OpenSSH is not installed (Debian: openssh-server, openssh-client)"

    directory: ClassVar[Path]

    @classmethod
    def deploy(cls, deployment: Deployment) -> None:
        """Keys, sshd as this user on a high port, and the three roles around it."""
        assert SSHD is not None
        cls.directory = deployment.directory
        host_key = make_key(cls.directory / "host_key")
        (cls.directory / "known_hosts").write_text(f"office {host_key}")
        make_key(cls.directory / "user_key")
        port = free_port()
        config = cls.directory / "sshd_config"
        config.write_text(SSHD_CONFIG.format(port=port, directory=cls.directory))
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        sshd = deployment.run("sshd", [SSHD, "-D", "-e", "-f", str(config)])
        deployment.intermediate("relay1")
        office = deployment.connector("office", {"ssh": Service(f"tcp:127.0.0.1:{port}")})
        alice = deployment.agent("alice", {"ssh": ANY_PORT})
        wait_for_output(sshd, "Server listening on")
        office.wait_for("registered")
        host, local_port = listener_of(alice, "ssh")
        values = {"host": host, "port": local_port, "user": getpass.getuser()}
        text = SSH_CONFIG.format(directory=cls.directory, **values)
        (cls.directory / "ssh_config").write_text(text)

    def run_client(self, program: str, *arguments: str) -> bytes:
        """What ssh or scp prints; fails unless it succeeds."""
        done = subprocess.run(
            [program, "-F", str(self.directory / "ssh_config"), *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
        )  # fmt: skip
        self.assertEqual(0, done.returncode, done.stderr.decode(errors="replace"))
        return done.stdout

    def test_a_command_is_run(self) -> None:
        """Its output comes back; the login was with the key, nothing else is allowed."""
        self.assertEqual(b"hello 42\n", self.run_client("ssh", "office", "echo hello $((6 * 7))"))

    def test_an_exit_status_is_carried(self) -> None:
        """A command that fails is not a connection that broke (255)."""
        done = subprocess.run(
            ["ssh", "-F", str(self.directory / "ssh_config"), "office", "exit 3"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
        )  # fmt: skip
        self.assertEqual(3, done.returncode, done.stderr)

    def test_a_file_is_copied_there_and_back(self) -> None:
        """By scp; all three are the same file."""
        original, there, back = (self.directory / name for name in ("file", "there", "back"))
        original.write_bytes(os.urandom(8 * MEBIBYTE))
        self.run_client("scp", str(original), f"office:{there}")
        self.run_client("scp", f"office:{there}", str(back))
        hashes = {hashlib.sha256(f.read_bytes()).hexdigest() for f in (original, there, back)}
        self.assertEqual(1, len(hashes))
