"""Endpoint strings: the nodes that they start, and the words for strings that cannot work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from zope.interface.verify import verifyObject

from p2pnet import errors
from p2pnet.config.setting import ConfigError
from p2pnet.identity import CredentialsError
from tests.net.support import EndpointCase

WEB = '[[service]]\nname = "web"\ntarget = "tcp:127.0.0.1:9"\nallow = ["alice"]\n'
FACTORY = Factory.forProtocol(Protocol)


class StringCase(EndpointCase):
    """Endpoints of strings."""

    def connect(self, text: str) -> Deferred[Any]:
        """Connect to what `text` says."""
        connecting: Deferred[Any] = clientFromString(self.reactor, text).connect(FACTORY)
        return connecting

    def assert_waits(self, connecting: Deferred[Any]) -> None:
        """It has not fired; it fails when the reactor stops."""
        self.assertNoResult(connecting)
        connecting.addErrback(lambda failure: failure.trap(errors.SessionLost))

    def listen(self, text: str) -> Deferred[Any]:
        """Listen on what `text` says."""
        listening: Deferred[Any] = serverFromString(self.reactor, text).listen(FACTORY)
        return listening


class StartTests(StringCase):
    """The node of a string starts with the first use, and ends with the reactor."""

    def refuses(self, waiting: Deferred[Any], text: str, port: int) -> None:
        """It failed because the node of `text` cannot have its port."""
        error = self.failureResultOf(waiting, CannotListenError).value
        self.assertEqual(
            f"{text}: cannot listen on 127.0.0.1 port {port}: [Errno 98] Address already in use;"
            " is another program using it?",
            str(error),
        )

    def test_regression_a_client_whose_node_cannot_start_fails(self) -> None:
        """connect() never fired; each attempt fails, and one works once the port is free."""
        taken = self.take_port()
        port = taken.getsockname()[1]
        file = self.write("alice", "agent", bind=f"127.0.0.1:{port}")
        web, dns = f"p2p:web:config={file}", f"p2p:dns:config={file}"
        for text in (web, dns, web):
            self.refuses(self.connect(text), text, port)
        taken.close()
        waiting = [self.connect(text) for text in (web, dns)]
        for deferred in waiting:
            self.assertNoResult(deferred)
            deferred.cancel()
            self.failureResultOf(deferred, CancelledError)

    def test_regression_a_server_whose_node_cannot_start_fails(self) -> None:
        """listen() fired with a port that nobody could reach."""
        port = self.take_port().getsockname()[1]
        file = self.write("office", "connector", WEB, f"127.0.0.1:{port}")
        text = f"p2p:web:config={file}"
        self.refuses(self.listen(text), text, port)

    def test_regression_a_node_that_cannot_start_leaves_no_file_open(self) -> None:
        """Its event log, once more with every attempt."""
        port = self.take_port().getsockname()[1]
        file = self.write("alice", "agent", bind=f'127.0.0.1:{port}"\nevent_log = "events')
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            self.failureResultOf(self.connect(f"p2p:web:config={file}"), CannotListenError)
        self.assertEqual(len(before), len(os.listdir("/proc/self/fd")))

    def test_an_event_log_that_cannot_be_opened(self) -> None:
        """It is a directory."""
        file = self.write("alice", "agent", bind=f'127.0.0.1:0"\nevent_log = "{self.directory}')
        self.failureResultOf(self.connect(f"p2p:web:config={file}"), OSError)

    def test_the_strings_of_one_file_share_a_node(self) -> None:
        """However its path is written."""
        file = self.write("alice", "agent", bind=f"127.0.0.1:{self.free_port()}")
        for path in (file, os.path.relpath(file), file.parent / "x" / ".." / file.name):
            self.assert_waits(self.connect(f"p2p:web:config={path}"))

    def free_port(self) -> int:
        """A UDP port that a second node could not open too."""
        taken = self.take_port()
        port: int = taken.getsockname()[1]
        taken.close()
        return port

    def test_regression_a_connect_that_waits_ends_with_the_reactor_and_so_do_later_ones(
        self,
    ) -> None:
        """Those after the stop waited for ever."""
        text = f"p2p:web:config={self.write('alice', 'agent')}"
        waiting = self.connect(text)
        self.assertNoResult(waiting)
        self.shut_down()
        self.failureResultOf(waiting, errors.SessionLost)
        error = self.failureResultOf(self.connect(text), errors.SessionLost).value
        self.assertEqual(f"the session is lost: {text}: the reactor stops", str(error))

    def test_a_string_that_is_not_used_opens_nothing(self) -> None:
        """It may name a port in use, and the reactor stops all the same."""
        bind = f"127.0.0.1:{self.take_port().getsockname()[1]}"
        clientFromString(self.reactor, f"p2p:web:config={self.write('alice', 'agent', bind=bind)}")
        self.assertEqual([], self.reactor.getReaders())


class PortTests(StringCase):
    """What listen() fires with."""

    def test_regression_it_is_a_port(self) -> None:
        """As the interface has it."""
        text = f"p2p:web:config={self.write('office', 'connector', WEB)}"
        port = self.successResultOf(self.listen(text))
        self.assertTrue(verifyObject(IListeningPort, port))
        self.assertEqual("ServiceAddress('web', 'office')", repr(port.getHost()))

    def test_regression_a_port_that_was_closed_does_not_end_the_next_one(self) -> None:
        """Closed once more, it took the service from its successor; it may listen again itself."""
        text = f"p2p:web:config={self.write('office', 'connector', WEB)}"
        first = self.successResultOf(self.listen(text))
        first.stopListening()
        second = self.successResultOf(self.listen(text))
        first.stopListening()
        error = self.assertRaises(CannotListenError, first.startListening)
        self.assertIn("office:web: service web is served already", str(error))
        self.failureResultOf(self.listen(text), CannotListenError)
        second.stopListening()
        first.startListening()
        self.failureResultOf(self.listen(text), CannotListenError)


class MistakeTests(StringCase):
    """Each message begins with the endpoint string, and says what would be right."""

    def setUp(self) -> None:
        """A configuration of each role, in the current directory."""
        super().setUp()
        self.write("alice", "agent")
        self.write("office", "connector", WEB)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)

    def assert_mistake(
        self, expected: str, text: str, kind: type[Exception] = ConfigError, parse: Any = None
    ) -> None:
        """Both kinds of endpoint, or the one that `parse` makes, are refused with this message."""
        for make in (clientFromString, serverFromString) if parse is None else (parse,):
            error = self.assertRaises(kind, make, self.reactor, text)
            self.assertEqual(f"{text}: {expected}", str(error).replace(f"{self.directory}/", ""))

    def test_regression_a_misspelt_option(self) -> None:
        """It was a TypeError about a function."""
        self.assert_mistake(
            "unknown option confg; did you mean config?", "p2p:web:confg=alice.toml"
        )
        self.assert_mistake(
            "unknown option colour; use config, service", "p2p:web:config=alice.toml:colour=red"
        )
        for name in ("reactor", "self", "prefix"):  # parameters of the functions that are called
            self.assert_mistake(
                f"unknown option {name}; use config, service", f"p2p:web:{name}=alice.toml"
            )

    def test_regression_no_option(self) -> None:
        """A file in the current directory was used, or the command line blamed."""
        for text in ("p2p:web", "p2p:web:config="):
            self.assert_mistake("config is missing; write p2p:web:config=FILE", text)

    def test_regression_too_few_and_too_many_arguments(self) -> None:
        """A colon in a name, an option without its name, or a service named twice."""
        write = "write p2p:SERVICE:config=FILE"
        self.assert_mistake(f"needs one service, got none; {write}", "p2p:config=alice.toml")
        self.assert_mistake(
            f"needs one service, got web, alice.toml; {write}", "p2p:web:alice.toml"
        )
        self.assert_mistake(
            f"needs one service, got web, dns; {write}", "p2p:web:service=dns:config=alice.toml"
        )

    def test_a_service_may_be_named(self) -> None:
        """As the arguments of Twisted's own endpoints may."""
        self.assert_waits(self.connect("p2p:service=web:config=alice.toml"))

    def test_a_name_that_cannot_be_a_services(self) -> None:
        """Known before anything is opened."""
        for name in ("Web", "", "a b"):
            text = f"p2p:{name}:config=alice.toml"
            error = self.assertRaises(ConfigError, clientFromString, self.reactor, text)
            self.assertIn(f"{text}: service name {name!r} is not valid", str(error))

    def test_regression_a_file_that_cannot_be_read(self) -> None:
        """The message spoke of --config."""
        self.assert_mistake("bob.toml: No such file or directory", "p2p:web:config=bob.toml")
        Path("bob.toml").write_text("[agent]\n")
        self.assert_mistake(
            'bob.toml:1: ca in [agent]: missing; write ca = "certs/ca.pem"',
            "p2p:web:config=bob.toml",
            parse=clientFromString,
        )

    def test_a_file_of_another_role(self) -> None:
        """Both roles have each other's."""
        for text, parse, found, known in (
            ("p2p:web:config=alice.toml", serverFromString, "agent", "connector, service"),
            ("p2p:web:config=office.toml", clientFromString, "connector", "agent, forward"),
        ):
            file = text.partition("=")[2]
            expected = f"{file}:1: {found}: unknown; use {known}"
            self.assert_mistake(expected, text, parse=parse)

    def test_a_certificate_that_cannot_be_used(self) -> None:
        """Missing, or of another role."""
        text = "p2p:web:config=alice.toml"
        Path("alice.pem").write_bytes(Path("office.pem").read_bytes())
        self.assert_mistake(
            "alice.key: is not the key of the certificate in alice.pem",
            text, CredentialsError, clientFromString,
        )  # fmt: skip
        Path("alice.key").write_bytes(Path("office.key").read_bytes())
        self.assert_mistake(
            "alice.pem: connector office of realm example cannot be run as agent",
            text, CredentialsError, clientFromString,
        )  # fmt: skip
        Path("alice.pem").unlink()
        self.assert_mistake(
            "alice.toml:5: cert in [agent]: alice.pem: No such file or directory;"
            " `p2pnet pki` makes these files",
            text, parse=clientFromString,
        )  # fmt: skip

    def test_regression_a_service_that_the_file_or_the_certificate_has_not(self) -> None:
        """listen() fired with a port; agents heard of no such service."""
        office = "connector office of realm example"
        self.assert_mistake(
            f"'dns' is not a service of {office}; add a [[service]] table for it (configured: web)",
            "p2p:dns:config=office.toml",
            parse=serverFromString,
        )
        changed = self.write("office", "connector", WEB.replace("web", "dns"))
        changed.rename("changed.toml")
        self.assert_mistake(
            f"the certificate of {office} does not grant dns; issue another one with"
            " `p2pnet pki issue connector office --service dns`",
            "p2p:dns:config=changed.toml", CredentialsError, serverFromString,
        )  # fmt: skip
