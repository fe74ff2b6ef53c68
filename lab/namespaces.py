"""Hosts and links of the laboratory: Linux network namespaces, veth pairs and wires.

::

    acquire()
    with Lab() as lab:
        left, right = lab.host("left"), lab.host("right")
        lab.link(left, "eth0", right, "eth0")
        left.ip("address add 11.0.0.1/30 dev eth0", "link set eth0 up")
        with left.enter():
            endpoint = socket.create_server(("11.0.0.1", 80))  # stays in that namespace

A namespace has no name in the system: it is an open descriptor of this process, and of processes
started in it. The kernel removes it, its interfaces and rules when all of those are gone, however
they went, so that a laboratory that crashed leaves nothing in the network. Its directory, and
processes on systems that cannot tie them to their parent, are found by the laboratory's name
(which holds its owner's process id) and removed by the next one or by ``python -m lab clean``.
"""

import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from lab.wire import TUN_DEVICE, Conditions, open_tun
from p2pnet.testing.processes import ProcessError, guarded

MARKER = "P2PNET_LAB"  # environment variable of the processes of a laboratory: its name
MTU = 1500  # bytes
_NAME = re.compile(r"p2n(\d+)-(\d+)-\w+")  # process id of the owner, when it started
_SYSTEM_PATH = ":/usr/sbin:/sbin"  # not in the PATH of users
_PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "env": "coreutils",
}
_SAMPLE_RULES = """
table ip sample {
 chain post {
  type nat hook postrouting priority srcnat;
  masquerade random
 }
}
"""
_PERMISSION = (
    "Run it as root, or let users make namespaces: sysctl"
    " kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu),"
    " kernel.unprivileged_userns_clone=1 (older Debian), user.max_user_namespaces above 0; a"
    " container must be started with --privileged."
)
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_NETLINK_NETFILTER = 12
_SYSCTLS = {
    # Else an IPv6 address is dead for its first seconds, while duplicates are looked for.
    "ipv6/conf/all/accept_dad": 0,
    "ipv6/conf/default/accept_dad": 0,
    # These are inherited from the machine, whose distribution may have changed them.
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    # A router must not teach its hosts to go around it.
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
}


class LabUnavailable(ProcessError):
    """No laboratory can be built on this system; the message says why and what to do."""


def program(name: str) -> str:
    """The path of a system program. Raises LabUnavailable."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + _SYSTEM_PATH)
    if found is None:
        package = _PACKAGES.get(name, name)
        raise LabUnavailable(f"{name} is not installed; on Debian: apt install {package}")
    return found


def find_obstacle() -> str:
    """Why no laboratory can be built on this system and what to do, "" if one can.

    Tries it out in another process.
    """
    if not sys.platform.startswith("linux"):
        return f"the laboratory needs Linux, and this is {sys.platform}; use a virtual machine"
    try:
        nft = [program(name) for name in _PACKAGES][1]
    except LabUnavailable as error:
        return str(error)
    user = () if is_privileged() else ("--user", "--map-root-user")
    inside = [program("unshare"), "--net", *user]
    if problem := _complaint([*inside, "true"]):
        return f"this user cannot make network namespaces ({problem}). {_PERMISSION}"
    if problem := _complaint([*inside, nft, "-f", "-"], _SAMPLE_RULES):
        return f"the kernel takes no NAT rules from nft ({problem}); load the module nf_tables"
    return ""


def acquire() -> None:
    """Let this process make namespaces: one that may not enters a user namespace of its own.

    To be called before there is a second thread. Raises LabUnavailable.
    """
    if obstacle := find_obstacle():
        raise LabUnavailable(obstacle)
    if is_privileged():
        return
    ids = {"setgroups": "deny", "uid_map": f"0 {os.geteuid()} 1", "gid_map": f"0 {os.getegid()} 1"}
    try:
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
    except OSError as error:
        advice = "start it in a program without other threads, or with: unshare -Urn"
        raise LabUnavailable(
            f"cannot enter a user namespace ({error.strerror}); {advice}"
        ) from None
    for name, text in ids.items():
        Path("/proc/self", name).write_text(text)


def _complaint(command: Sequence[str], text: str = "") -> str:
    """What a command says when it fails, "" when it does not."""
    done = subprocess.run(command, input=text, text=True, capture_output=True)
    lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    return lines[0] if done.returncode else ""


def is_privileged() -> bool:
    """Whether this process may make namespaces as it is."""
    status = Path("/proc/self/status").read_text()
    effective = int(re.findall(r"^CapEff:\s*(\w+)", status, re.MULTILINE)[0], 16)
    return all(effective >> bit & 1 for bit in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(function: str, *arguments: int) -> None:
    """Call a function of the C library. Raises OSError."""
    if getattr(_libc(), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)


@contextlib.contextmanager
def _returning() -> Iterator[None]:
    """Bring the calling thread back to the namespace in which it is now."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            _call("setns", here, _CLONE_NEWNET)
        finally:
            os.close(here)


class Host:
    """A machine of the laboratory: one network namespace.

    :ivar prefix: what to put before a command so that it runs on this host.
    """

    def __init__(self, name: str, lab: str) -> None:
        self.name = name
        with _returning():
            _call("unshare", _CLONE_NEWNET)
            self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.prefix = (program("env"), f"{MARKER}={lab}", program("nsenter"), f"--net={self.path}")
        self.sysctl(_SYSCTLS)
        self.ip("link set lo up")

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Have the calling thread on this host; a socket stays where it was made.

        Never await inside: other code of the thread would be on this host too.
        """
        with _returning():
            _call("setns", self._descriptor, _CLONE_NEWNET)
            yield

    def run(self, command: Sequence[str], text: str = "") -> str:
        """The output of a command run here with `text` as its input. Raises ProcessError."""
        with self.enter():
            done = subprocess.run(command, input=text, text=True, capture_output=True)
        if done.returncode:
            what = " ".join(command)
            raise ProcessError(f"{self.name}: {what}: {done.stderr.strip()}\n{text}")
        return done.stdout

    def ip(self, *commands: str) -> None:
        """Run commands of ip(8). Raises ProcessError."""
        self.run([program("ip"), "-batch", "-"], "\n".join(commands) + "\n")

    def nft(self, rules: str) -> None:
        """Load rules in the language of nft(8), all or none of them. Raises ProcessError."""
        self.run([program("nft"), "-f", "-"], rules)

    def sysctl(self, values: dict[str, int]) -> None:
        """Set kernel parameters, named by their path below /proc/sys/net. Raises OSError."""
        with self.enter():
            for name, value in values.items():
                Path("/proc/sys/net", name).write_text(str(value))

    def forget_connections(self) -> None:
        """Empty the connection tracking table, as a restart would. Raises OSError."""
        delete = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
        flags = 0x1 | 0x4  # NLM_F_REQUEST, NLM_F_ACK
        message = struct.pack("=IHHIIBBH", 20, delete, flags, 1, 0, socket.AF_UNSPEC, 0, 0)
        with (
            self.enter(),
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel,
        ):
            kernel.send(message)
            (error,) = struct.unpack_from("=i", kernel.recv(4096), 16)
        if error:
            raise OSError(-error, os.strerror(-error), "flushing conntrack")

    def received(self, interface: str) -> int:
        """How many bytes came in on an interface."""
        with self.enter():
            table = Path("/proc/thread-self/net/dev").read_text()
        return next(
            int(line.split(":")[1].split()[0])
            for line in table.splitlines()
            if line.strip().startswith(f"{interface}:")
        )

    def close(self) -> None:
        """Let the namespace go."""
        os.close(self._descriptor)


@dataclasses.dataclass(frozen=True)
class Wire:
    """A link with conditions: the descriptors of its two TUN devices."""

    one: int
    other: int


class Lab:
    """The hosts and links of one laboratory; leaves nothing behind when closed.

    :ivar name: unique, see the module.
    :ivar directory: for the files of its processes; removed at the end.
    """

    def __init__(self) -> None:
        remove_leftovers()
        prefix = f"p2n{os.getpid()}-{_started(os.getpid())}-"
        self.directory = Path(tempfile.mkdtemp(prefix=prefix))
        self.name = self.directory.name
        self.hosts: list[Host] = []
        self._wires: dict[Wire, Conditions] = {}
        self._index = 100
        self._hub: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def host(self, name: str) -> Host:
        """A new host, connected to nothing."""
        host = Host(name, self.name)
        self.hosts.append(host)
        return host

    def link(
        self, one: Host, one_name: str, other: Host, other_name: str,
        *, mtu: int = MTU, conditions: Conditions | None = None,
    ) -> Wire | None:  # fmt: skip
        """Connect two hosts by interfaces of these names, which are down at first.

        Links with `conditions` are wires and carry packets from `start_wires()` on; the others
        are veth pairs. Raises ProcessError.
        """
        if conditions is None:
            # Unique numbers: with the same one at both ends IPv6 comes up a second late.
            self._index += 2
            one.ip(
                f"link add {one_name} index {self._index} mtu {mtu} type veth peer name"
                f" {other_name} index {self._index + 1} mtu {mtu} netns {other.path}"
            )
            return None
        wire = Wire(_tun(one, one_name, mtu), _tun(other, other_name, mtu))
        self._wires[wire] = conditions
        return wire

    def start_wires(self) -> None:
        """Have the links with conditions carry packets, once all of them are there."""
        if not self._wires:
            return
        descriptors = [end for wire in self._wires for end in dataclasses.astuple(wire)]
        hub = [sys.executable, "-P", str(Path(__file__).with_name("wire.py"))]
        command = [program("env"), f"{MARKER}={self.name}", *hub, self._order(*self._wires)]
        self._hub = subprocess.Popen(
            guarded(command),
            stdin=subprocess.PIPE, pass_fds=descriptors,
        )  # fmt: skip
        for descriptor in descriptors:
            os.close(descriptor)

    def change(self, wire: Wire, conditions: Conditions) -> None:
        """Give a wire other conditions."""
        self._wires[wire] = conditions
        if self._hub is not None and self._hub.stdin is not None:
            self._hub.stdin.write(self._order(wire).encode() + b"\n")
            self._hub.stdin.flush()

    def _order(self, *wires: Wire) -> str:
        """What the process of the wires is told about these."""
        rows = [(w, self._wires[w]) for w in wires]
        return json.dumps([(w.one, w.other, dataclasses.asdict(c)) for w, c in rows])

    def close(self) -> None:
        """Remove everything. Processes on the hosts must have been stopped."""
        if self._hub is not None:
            self._hub.communicate()
        for host in self.hosts:
            host.close()
        self.hosts.clear()
        shutil.rmtree(self.directory, ignore_errors=True)


def _tun(host: Host, name: str, mtu: int) -> int:
    try:
        with host.enter():
            descriptor = open_tun(name)
    except OSError as error:
        problem = f"delay and loss need {TUN_DEVICE} ({error.strerror})"
        advice = "load the module tun, let this user read and write it, or run as root"
        raise LabUnavailable(f"{problem}; {advice}") from None
    host.ip(f"link set {name} mtu {mtu}")
    return descriptor


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did; "" if it is not running."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie waits for its parent, or for init


def _is_abandoned(name: str) -> bool:
    """Whether this is the name of a laboratory whose process is gone."""
    found = _NAME.fullmatch(name)
    return found is not None and _started(int(found[1])) != found[2]


def _members() -> Iterator[tuple[int, str]]:
    """The processes of all laboratories of this user: process id, name of the laboratory."""
    pattern = re.compile(rf"(?:^|\0){MARKER}=(p2n[\w-]+)".encode())
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if found := pattern.search(path.read_bytes()):
                yield int(path.parent.name), found[1].decode()


def remove_leftovers() -> list[str]:
    """Remove what laboratories left behind whose process is gone, and return their names."""
    removed = set()
    for pid, name in _members():
        if _is_abandoned(name):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                removed.add(name)
    for path in Path(tempfile.gettempdir()).glob("p2n*"):
        with contextlib.suppress(OSError):
            if _is_abandoned(path.name) and path.stat().st_uid == os.geteuid():
                shutil.rmtree(path)
                removed.add(path.name)
    return sorted(removed)
