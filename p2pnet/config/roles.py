"""The configuration of each role: a frozen struct, loaded from TOML file and command line."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from p2pnet.config.setting import (
    CANDIDATE_SOURCES,
    Setting,
    check_agent,
    check_bind,
    check_candidate_source,
    check_congestion,
    check_endpoint,
    check_engine,
    check_external,
    check_file,
    check_listen,
    check_log,
    check_own_policy,
    check_policy,
    check_remote,
    check_seconds,
    check_service,
    check_udp,
)

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
MAX_WORKERS = 64  # a byte chooses the worker, less evenly the more workers there are


class ServiceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service that a Connector offers: one ``[[service]]`` table.

    :cvar endpoint: the key of the table's endpoint.
    :ivar where: place of the endpoint for errors (file, line and key, or the option), which the
        loader sets.
    """

    endpoint: ClassVar[str] = "target"

    name: Annotated[str, Setting("Its name.", "web", check_service, unique=True)]
    target: Annotated[str, Setting("Its endpoint.", "tcp:127.0.0.1:8080", check_endpoint)]
    allow: Annotated[
        tuple[str, ...],
        Setting(
            'The agents that may use a service, "*" for any of the realm; nobody unless listed.'
            " May be repeated for several services; replaces what the file allows for it.",
            ["alice"],
            check_agent,
        ),
    ] = ()
    where: str = "target in [[service]]"


class ForwardConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A local listener of an Agent and its service: one ``[[forward]]`` table.

    :cvar endpoint: the key of the table's endpoint.
    :ivar where: place of the endpoint for errors (file, line and key, or the option), which the
        loader sets.
    """

    endpoint: ClassVar[str] = "listen"

    service: Annotated[str, Setting("The service's name.", "web", check_service)]
    listen: Annotated[
        str, Setting("Its endpoint.", "tcp:8081:interface=127.0.0.1", check_endpoint, unique=True)
    ]
    path: Annotated[
        str,
        Setting(
            "How to choose its paths; as for all forwards, unless given.",
            "prefer-direct",
            check_own_policy,
        ),
    ] = ""
    where: str = "listen in [[forward]]"


class RoleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the settings of each role. File paths are absolute.

    :cvar table: name of the TOML table with the settings.
    """

    table: ClassVar[str]

    ca: Annotated[
        Path,
        Setting("PEM file: the realm's CA certificate.", "certs/ca.pem", check_file, "p2p-ca"),
    ]
    cert: Annotated[
        Path,
        Setting("PEM file: the certificate of this node.", "certs/me.pem", check_file, "p2p-cert"),
    ]
    key: Annotated[
        Path,
        Setting("PEM file: the private key of this node.", "certs/me.key", check_file, "p2p-key"),
    ]
    event_log: Annotated[
        Path | None,
        Setting(
            "Append a line of JSON to this file for each thing that happened.",
            "events.jsonl",
            check_log,
        ),
    ] = None
    udp: Annotated[
        str,
        Setting(
            "How the UDP socket is used: auto (many datagrams a system call, where the system can)"
            " or plain (one).",
            check=check_udp,
        ),
    ] = "auto"
    quic: Annotated[
        str,
        Setting(
            "How to make QUIC packets: fast, or stock (aioquic's own code, for comparison).",
            check=check_engine,
        ),
    ] = "fast"


class IntermediateConfig(RoleConfig, frozen=True, kw_only=True):
    """Settings of the Intermediate: the ``[intermediate]`` table."""

    table: ClassVar[str] = "intermediate"

    listen: Annotated[
        str,
        Setting("UDP address IP:PORT, [::]:PORT for IPv4 and IPv6.", check=check_listen),
    ] = "0.0.0.0:4433"
    max_connections: Annotated[Positive, Setting("Limit of nodes connected at a time.")] = 10_000
    max_sessions: Annotated[Positive, Setting("Limit of sessions at a time.")] = 10_000
    max_sessions_per_node: Annotated[
        Positive, Setting("Limit of sessions of one node's name at a time.")
    ] = 256
    session_rate: Annotated[
        NotNegative,
        Setting("Bytes/s relayed per session and direction, 0 for no limit."),
    ] = 100_000_000
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_WORKERS)] | Literal["auto"],
        Setting(
            "Processes that relay on the UDP port (Linux), or auto: one a processor. One forwards"
            " some 300,000 packets a second, more than most networks bring.",
            "auto",
        ),
    ] = 1
    drain_seconds: Annotated[
        float,
        Meta(ge=0),
        Setting("Seconds that sessions get to end in on SIGTERM.", check=check_seconds),
    ] = 10.0
    retry_above: Annotated[
        NotNegative,
        Setting(
            "Half-open handshakes, and unproven ones a second that do not complete, above which"
            " Retry is demanded of newcomers."
        ),
    ] = 32


class PeerConfig(RoleConfig, frozen=True, kw_only=True):
    """Settings that Connector and Agent have in common."""

    intermediates: Annotated[
        tuple[str, ...],
        Meta(min_length=1),
        Setting(
            "HOST:PORT of an Intermediate. May be repeated.",
            ["192.0.2.1:4433"],
            check_remote,
            "intermediate",
            unique=True,
        ),
    ]
    bind: Annotated[
        str,
        Setting(
            "Local UDP address IP:PORT; any port, IPv4 and IPv6, unless given.", check=check_bind
        ),
    ] = ""
    external: Annotated[
        tuple[str, ...],
        Setting(
            "An address IP:PORT that leads to this node's UDP port, as a port forwarding does."
            " May be repeated.",
            ["203.0.113.7:4433"],
            check_external,
            unique=True,
        ),
    ] = ()
    candidates: Annotated[
        tuple[str, ...],
        Setting(
            "An address to offer to peers: host (this machine's own), srflx (as an Intermediate"
            " sees it) or external. May be repeated; all of them unless given.",
            ["host", "srflx", "external"],
            check_candidate_source,
            option="candidate",
            unique=True,
        ),
    ] = CANDIDATE_SOURCES
    congestion: Annotated[
        str,
        Setting(
            "The congestion controller of this node's packets: bbr, cubic or reno. The last two"
            " slow down at each lost packet.",
            check=check_congestion,
        ),
    ] = "bbr"
    tcp_keepalive: Annotated[
        NotNegative,
        Setting(
            "Seconds of silence after which a local TCP connection is probed, and between probes;"
            " it is lost after eight times as many. 0 for never.",
        ),
    ] = 15


class ConnectorConfig(PeerConfig, frozen=True, kw_only=True):
    """Settings of a Connector: the ``[connector]`` table and its ``[[service]]`` tables."""

    table: ClassVar[str] = "connector"

    services: Annotated[
        tuple[ServiceConfig, ...],
        Meta(max_length=256),
        Setting(
            "NAME=TARGET, a service and the client endpoint of its target, as in"
            " web=tcp:127.0.0.1:8080. May be repeated; replaces all services of the file.",
            [],
            option="service",
            element=ServiceConfig,
        ),
    ] = ()
    max_streams: Annotated[Positive, Setting("Limit of streams of one Agent at a time.")] = 512
    max_flows: Annotated[Positive, Setting("Limit of UDP flows of one Agent at a time.")] = 1024


class AgentConfig(PeerConfig, frozen=True, kw_only=True):
    """Settings of an Agent: the ``[agent]`` table and its ``[[forward]]`` tables."""

    table: ClassVar[str] = "agent"

    forwards: Annotated[
        tuple[ForwardConfig, ...],
        Setting(
            "SERVICE=LISTEN, a service and the server endpoint that leads to it, as in"
            " web=tcp:8081:interface=127.0.0.1. May be repeated; replaces all of the file.",
            [],
            option="forward",
            element=ForwardConfig,
        ),
    ] = ()
    path: Annotated[
        str,
        Setting(
            "How to choose the paths of sessions: prefer-direct, lowest-rtt (direct only where that"
            " is 30 % faster), relay-only or direct-only.",
            "prefer-direct",
            check_policy,
        ),
    ] = "prefer-direct"
