"""The local listeners of an Agent: what they report, and how one that fails ends the process."""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.logger import LogLevel, globalLogPublisher
from twisted.plugin import IPlugin
from zope.interface import implementer

import twisted.plugins
from p2pnet import reports
from p2pnet.config.loading import load_config
from p2pnet.config.roles import AgentConfig
from p2pnet.config.setting import ConfigError
from p2pnet.net.listener import BACKLOG
from p2pnet.roles.agent import AgentService
from p2pnet.roles.service import StartError
from tests.net.support import EndpointCase


@implementer(IPlugin, IStreamServerEndpointStringParser, IStreamServerEndpoint)
class Later:
    """``later:``, an endpoint that listens, or fails to, when the test says so."""

    prefix = "later"
    deferred: Deferred[Any]

    def parseStreamServer(self, reactor: Any, *arguments: Any, **options: Any) -> Later:
        """The endpoint."""
        return self

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """Wait for the test."""
        return self.deferred


later = Later()


class ForwardTests(EndpointCase):
    """An Agent with one forward, whose node has a real socket."""

    def setUp(self) -> None:
        """A plugin of Twisted for ``later:`` endpoints."""
        super().setUp()
        plugins = self.directory / "plugins"
        plugins.mkdir()
        (plugins / "later_plugin.py").write_text(f"from {__name__} import later\n")
        self.patch(twisted.plugins, "__path__", [*twisted.plugins.__path__, str(plugins)])
        self.addCleanup(sys.modules.pop, "twisted.plugins.later_plugin", None)
        later.deferred = Deferred()
        self.reactor.hasRun = True
        self.lines: list[str] = []
        observer: Any = self.keep_critical
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def keep_critical(self, event: Any) -> None:
        """Keep the line of an event of the log that ends the process."""
        if event["log_level"] is LogLevel.critical:
            self.lines.append(event["log_format"].format(**event))

    def agent(self, listen: str, reactor: Any = None) -> AgentService:
        """The Agent that forwards from there, not started; its node is stopped in the end."""
        file = self.write("alice", "agent", f'[[forward]]\nservice = "web"\nlisten = "{listen}"\n')
        service = AgentService(reactor or self.reactor, load_config(AgentConfig, file, {}))
        self.reports: list[reports.Report] = []
        service.node.observers.append(self.reports.append)
        self.addCleanup(lambda: service.node.running and service.node.stopService())
        return service

    def start(self, listen: str) -> AgentService:
        """The Agent that forwards from there, started as twistd does; stopped in the end."""
        service = self.agent(listen)
        self.addCleanup(service.stopService)
        service.privilegedStartService()
        service.startService()
        return service

    def place(self, listen: str) -> str:
        """How an error begins."""
        return f"{self.directory / 'alice.toml'}:9: listen in [[forward]] 1: {listen!r}: "

    def listening(self) -> list[str]:
        """The addresses that were reported, without the node's own."""
        listening = [r for r in self.reports if isinstance(r, reports.Listening)]
        return [report.address for report in listening if report.what == "web"]

    def test_a_listener_is_reported(self) -> None:
        """With its address; the port closes with the service."""
        self.start("tcp:8081:interface=127.0.0.1")
        self.assertEqual(["0.0.0.0:8081"], self.listening())  # the memory's only address
        self.assertEqual(8081, self.reactor.tcpServers[0][0])

    def test_regression_many_connections_may_wait_to_be_accepted(self) -> None:
        """Twisted queues 50, and the system drops what is beyond. A number that is given stays."""
        self.start("tcp:8081:interface=127.0.0.1")
        self.start("tcp:8082:backlog=7")
        self.assertEqual([BACKLOG, 7], [server[2] for server in self.reactor.tcpServers])

    def test_regression_a_listener_without_an_interface_is_on_loopback(self) -> None:
        """Whoever reached the machine could use the service in this agent's name."""
        self.start("tcp:8081")
        self.start("tcp:0.0.0.0:8082")
        self.assertEqual(
            ["127.0.0.1", "0.0.0.0"], [server[3] for server in self.reactor.tcpServers]
        )

    def test_regression_a_listener_without_a_port_number_is_reported(self) -> None:
        """A UNIX socket has no host either, and the report failed."""
        self.start(f"unix:{self.directory / 'socket'}")
        (address,) = self.listening()
        self.assertIn("socket", address)

    def test_regression_a_listener_that_fails_later_ends_the_process(self) -> None:
        """Nothing was said, and nothing listened."""
        self.start("later:x")
        self.assertFalse(self.reactor.hasStopped)
        later.deferred.errback(RuntimeError("cannot publish the name"))
        self.assertEqual([f"p2p-agent: {self.place('later:x')}cannot publish the name"], self.lines)
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual([], self.listening())

    def test_regression_a_listener_that_fails_at_once_ends_the_start(self) -> None:
        """With file, line, key and endpoint."""
        later.deferred.errback(CannotListenError("127.0.0.1", 80, "it is taken"))
        error = self.assertRaises(StartError, self.agent("later:x").startService)
        self.assertEqual(
            f"p2p-agent: {self.place('later:x')}cannot listen on 127.0.0.1 port 80: it is taken;"
            " is another program using it?",
            str(error),
        )

    def test_regression_a_port_in_use_ends_the_start(self) -> None:
        """For streams and for datagrams, on the sockets of the system; the line named no key."""
        for kind, taken in (
            ("tcp", self.take_port(socket.SOCK_STREAM)),
            ("udp", self.take_port()),
        ):
            port = taken.getsockname()[1]
            listen = f"{kind}:{port}:interface=127.0.0.1"
            error = self.assertRaises(StartError, self.agent(listen, reactor).startService)
            place = self.place(listen)
            self.assertIn(f"{place}cannot listen on 127.0.0.1 port {port}: ", str(error))

    def test_a_listener_that_is_not_there_yet_ends_with_the_service(self) -> None:
        """That is no failure."""
        self.start("later:x").stopService()
        self.assertEqual([], self.lines)
        self.assertFalse(self.reactor.hasStopped)

    def test_regression_an_endpoint_that_cannot_be_parsed_names_file_and_line(self) -> None:
        """And itself, once, whoever parses it."""
        nope = self.directory / "nope"
        for listen, problem in (
            ("nope:1", "'nope:1': Unknown endpoint type: 'nope'"),
            (f"ssl:443:privateKey={nope}", f"'ssl:443:privateKey={nope}': [Errno 2] No such file"),
            (f"p2p:web:config={nope}", f"p2p:web:config={nope}: {nope}: No such file"),
            ("udp:x", "'udp:x' is not udp:PORT, "),
        ):
            error = self.assertRaises(ConfigError, self.agent, listen)
            self.assertIn(f"alice.toml:9: listen in [[forward]] 1: {problem}", str(error))
