"""Tests of the endpoint contract: programs of Twisted work over p2pnet unchanged."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.web import client, resource, server, static
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2pnet import errors
from p2pnet.core.peer.stream import Stream
from p2pnet.endpoints import P2PClientEndpoint, P2PServerEndpoint
from p2pnet.node.agent import AgentNode
from p2pnet.testing.realm import Simulation
from p2pnet.wire.codes import ErrorCode
from tests.sim.support import SimulationCase, Talk, Talks


@implementer(IAgentEndpointFactory)
class Services:
    """Takes the host of a URL for the name of a service."""

    def __init__(self, node: AgentNode) -> None:
        self._node = node

    def endpointForURI(self, uri: Any) -> P2PClientEndpoint:
        """The endpoint of that service."""
        return P2PClientEndpoint(self._node, uri.host.decode())


@implementer(IBodyProducer)
class Body:
    """A request body that is written at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Write it."""
        consumer.write(self._data)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """Too late."""

    def resumeProducing(self) -> None:
        """Nothing is left."""

    def stopProducing(self) -> None:
        """It is."""


class Digest(resource.Resource):
    """Answers with the hash of what it is sent."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        """Of all of it."""
        return hashlib.sha256(request.content.read()).hexdigest().encode()


class WebTests(SimulationCase):
    """twisted.web on both sides, unmodified."""

    def setUp(self) -> None:
        """A site behind a connector, and a web client with an agent."""
        self.simulation: Simulation = self.simulate()
        agent, connector, _ = self.trio(self.simulation)
        connector.unserve("web")
        clock: Any = self.simulation.network.clock
        self.data = self.simulation.network.random.randbytes(300_000)
        root = resource.Resource()
        root.putChild(b"file", static.Data(self.data, "application/octet-stream"))
        root.putChild(b"digest", Digest())
        site = server.Site(root, reactor=clock)
        self.successResultOf(P2PServerEndpoint(connector, "web").listen(site))
        self.pool = client.HTTPConnectionPool(clock)
        self.addCleanup(self.pool.closeCachedConnections)
        self.web = client.Agent.usingEndpointFactory(clock, Services(agent), self.pool)

    def result(self, deferred: Deferred[Any]) -> Any:
        """What it fires with, after some time."""
        results: list[Any] = []
        deferred.addCallback(results.append)
        self.run_until(self.simulation, lambda: results, 10.0)
        self.successResultOf(deferred)
        return results[0]

    def request(self, method: bytes, path: bytes, body: bytes | None = None) -> Any:
        """Fires with the response's body."""
        producer = None if body is None else Body(body)
        response = self.web.request(method, b"http://web" + path, bodyProducer=producer)
        return response.addCallback(client.readBody)

    def test_a_file_is_downloaded(self) -> None:
        """Byte for byte."""
        self.assertTrue(self.data == self.result(self.request(b"GET", b"/file")))

    def test_a_body_is_uploaded(self) -> None:
        """Byte for byte, too."""
        digest = hashlib.sha256(self.data).hexdigest().encode()
        self.assertEqual(digest, self.result(self.request(b"POST", b"/digest", self.data)))

    def test_many_requests_at_once_and_one_after_the_other_share_connections(self) -> None:
        """Kept alive and used again, as the pool likes it."""
        self.pool.maxPersistentPerHost = 5
        for _ in range(2):
            requests = [self.request(b"POST", b"/digest", b"%d" % n) for n in range(5)]
            expected = [hashlib.sha256(b"%d" % n).hexdigest().encode() for n in range(5)]
            self.assertEqual(expected, self.result(gatherResults(requests)))
        (session,) = self.simulation.nodes[1].core.sessions
        self.assertEqual(5, len(session.streams))
        self.result(self.pool.closeCachedConnections())
        self.simulation.network.run(1.0)
        self.assertEqual({}, session.streams)

    def test_a_request_that_is_cancelled_closes_its_stream(self) -> None:
        """The site notices."""
        requested = self.web.request(b"GET", b"http://web/file")
        self.simulation.network.run(0.15)
        requested.addErrback(lambda failure: None)
        requested.cancel()
        self.simulation.network.run(1.0)
        (session,) = self.simulation.nodes[1].core.sessions
        self.assertEqual({}, session.streams)

    def test_a_service_that_does_not_exist_is_a_failed_connection(self) -> None:
        """With the error that says so."""
        requested = self.web.request(b"GET", b"http://printer/")
        self.run_until(self.simulation, lambda: requested.called)
        self.failureResultOf(requested, errors.UnknownService)


class EndpointTests(SimulationCase):
    """connect() and listen()."""

    def test_they_are_endpoints(self) -> None:
        """As the interfaces have it."""
        agent, connector, _ = self.trio(self.simulate())
        client_endpoint = P2PClientEndpoint(agent, "web")
        server_endpoint = P2PServerEndpoint(connector, "web")
        self.assertTrue(verifyObject(IStreamClientEndpoint, client_endpoint))
        self.assertTrue(verifyObject(IStreamServerEndpoint, server_endpoint))

    def test_a_connect_can_be_cancelled_at_any_time(self) -> None:
        """Before the session, while the answer is on its way; the other end hears no more of it."""
        for seconds in (0.0, 0.05, 0.1, 0.15, 0.2):
            simulation = self.simulate()
            agent, _, served = self.trio(simulation)
            waiting = self.connecting(agent)
            simulation.network.run(seconds)
            self.assertFalse(waiting.called, seconds)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            simulation.network.run(2.0)
            for talk in served.made:
                self.assertIsNotNone(talk.why)
            for node in simulation.nodes[1:]:
                self.assertEqual([], [s for s in node.core.sessions if s.streams])

    def test_a_factory_that_builds_nothing_ends_the_stream(self) -> None:
        """As with any endpoint."""

        class Nothing(Factory):
            def buildProtocol(self, addr: Any) -> None:
                """No protocol."""

        simulation = self.simulate()
        agent, _, served = self.trio(simulation)
        waiting = P2PClientEndpoint(agent, "web").connect(Nothing())
        self.run_until(simulation, lambda: waiting.called)
        self.failureResultOf(waiting, CancelledError)
        self.run_until(simulation, lambda: served.made[0].why, 1.0)

    def test_regression_a_factory_that_raises_does_not_leave_the_stream_open(self) -> None:
        """The error is passed on, and the stream stayed for ever."""

        class Broken(Factory):
            def buildProtocol(self, addr: Any) -> None:
                """A bug."""
                raise ZeroDivisionError

        simulation = self.simulate()
        agent, _, served = self.trio(simulation)
        waiting = P2PClientEndpoint(agent, "web").connect(Broken())
        self.run_until(simulation, lambda: waiting.called)
        self.failureResultOf(waiting, ZeroDivisionError)
        self.run_until(simulation, lambda: served.made[0].why, 1.0)

    def test_regression_a_protocol_that_raises_as_it_is_connected_ends_its_stream(self) -> None:
        """At either end; the stream stayed, and the program knew of no connection."""

        class Broken(Talk):
            def connectionMade(self) -> None:
                """A bug."""
                raise ZeroDivisionError

        simulation = self.simulate()
        self.errors_expected = True
        agent, connector, served = self.trio(simulation)
        waiting = P2PClientEndpoint(agent, "web").connect(Talks(Broken))
        self.run_until(simulation, lambda: waiting.called)
        self.failureResultOf(waiting, ZeroDivisionError)
        self.run_until(simulation, lambda: served.made[0].why, 1.0)
        connector.unserve("web")
        self.successResultOf(P2PServerEndpoint(connector, "web").listen(Talks(Broken)))
        self.refused(simulation, agent, errors.StreamBroken)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_regression_a_server_factory_that_raises_refuses(self) -> None:
        """The agent waited for ever."""

        class Broken(Factory):
            def buildProtocol(self, addr: Any) -> None:
                """A bug."""
                raise ZeroDivisionError

        simulation = self.simulate()
        self.errors_expected = True
        agent, connector, _ = self.trio(simulation)
        connector.unserve("web")
        self.successResultOf(P2PServerEndpoint(connector, "web").listen(Broken()))
        self.refused(simulation, agent, errors.TargetUnreachable)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_a_server_factory_that_builds_nothing_refuses(self) -> None:
        """A Site with too many connections, for example."""

        class Nothing(Factory):
            def buildProtocol(self, addr: Any) -> None:
                """No protocol."""

        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        connector.unserve("web")
        self.successResultOf(P2PServerEndpoint(connector, "web").listen(Nothing()))
        self.refused(simulation, agent, errors.TargetRefused)

    def test_a_service_is_served_once_and_until_its_port_is_closed(self) -> None:
        """Twice is an error; afterwards it is unknown, and may be served again."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        connector.unserve("web")
        endpoint = P2PServerEndpoint(connector, "web")
        port: Any = self.successResultOf(endpoint.listen(Talks()))
        self.assertEqual(("web", "office"), (port.getHost().service, port.getHost().node))
        self.failureResultOf(endpoint.listen(Talks()), CannotListenError)
        port.stopListening()
        self.refused(simulation, agent, errors.UnknownService)
        self.successResultOf(endpoint.listen(Talks()))
        self.talk(simulation, agent)

    def test_regression_a_bad_name_fails_the_deferred(self) -> None:
        """connect() raised at once instead."""
        simulation = self.simulate()
        agent, _, _ = self.trio(simulation)
        self.failureResultOf(self.connecting(agent, "no such thing"), ValueError)

    def test_regression_a_node_that_does_not_run_refuses_to_connect(self) -> None:
        """What waits when it stops fails too; what came later waited for ever."""
        simulation = self.simulate()
        agent, _, _ = self.trio(simulation)
        waiting = [self.connecting(agent, service) for service in ("web", "dns", "web")]
        agent.stopService()
        for deferred in waiting:
            self.failureResultOf(deferred, errors.SessionLost)
        error = self.failureResultOf(self.connecting(agent), errors.SessionLost).value
        self.assertEqual("the session is lost: this agent is not running", str(error))

    def test_regression_a_node_is_started_once(self) -> None:
        """The second start opened another socket, and the first one stayed open."""
        simulation = self.simulate()
        agent, _, _ = self.trio(simulation)
        self.assertRaises(RuntimeError, agent.startService)
        self.talk(simulation, agent)

    def test_regression_a_service_that_no_agent_could_reach_is_not_listened_on(self) -> None:
        """One that is not configured, and one that the certificate does not grant."""
        simulation = self.simulate()
        connector = simulation.connector({"web": ["alice"]}, grants=["dns"])
        for service, problem in (
            ("dns", "add a [[service]] table for it (configured: web)"),
            ("web", "does not grant web"),
        ):
            listening = P2PServerEndpoint(connector, service).listen(Talks())
            self.assertIn(problem, str(self.failureResultOf(listening).value))


class ErrorTests(SimulationCase):
    """Each code is an exception of its own, which other programs understand."""

    EXPECTED = {
        ErrorCode.UNKNOWN_SERVICE: errors.UnknownService,
        ErrorCode.NOT_AUTHORIZED: errors.NotAuthorized,
        ErrorCode.TARGET_REFUSED: errors.TargetRefused,
        ErrorCode.TARGET_UNREACHABLE: errors.TargetUnreachable,
        ErrorCode.OVER_LIMIT: errors.OverLimit,
        ErrorCode.NOT_GRANTED: errors.BadCertificate,
        ErrorCode.WRONG_PEER: errors.BadCertificate,
        ErrorCode.BAD_CERTIFICATE: errors.BadCertificate,
        ErrorCode.UNREACHABLE: errors.IntermediateUnreachable,
        ErrorCode.PEER_LOST: errors.SessionLost,
        ErrorCode.RESTARTED: errors.SessionLost,
        ErrorCode.SHUTDOWN: errors.SessionLost,
        ErrorCode.CANCELLED: errors.StreamBroken,
        ErrorCode.PROTOCOL_ERROR: errors.ServiceError,
        ErrorCode.DRAINING: errors.ServiceError,
    }

    def test_a_refusal_has_the_type_of_its_code(self) -> None:
        """Over the whole way from a connector's refusal."""
        simulation = self.simulate()
        agent, connector, _ = self.trio(simulation)
        for code, kind in self.EXPECTED.items():
            connector.unserve("web")

            def refuse(stream: Stream, code: ErrorCode = code) -> None:
                stream.refuse(code, "no")

            connector.serve("web", refuse)
            error = self.refused(simulation, agent, errors.ServiceError)
            self.assertIs(kind, type(error))
            self.assertIs(code, error.code)
            self.assertIsInstance(error, ConnectError)

    def test_programs_that_know_only_twisted_understand(self) -> None:
        """What is like a refused or lost connection is one."""
        self.assertTrue(issubclass(errors.TargetRefused, ConnectionRefusedError))
        self.assertTrue(issubclass(errors.SessionLost, ConnectionLost))
        self.assertTrue(issubclass(errors.StreamBroken, ConnectionLost))

    def test_an_error_says_what_and_why(self) -> None:
        """With a reason or without, for a code of a later version too."""
        self.assertEqual("not authorized: no", str(errors.error_for(0x11, "no")))
        self.assertEqual("unknown service", str(errors.error_for(0x10)))
        later = errors.error_for(0x7777, "new")
        self.assertEqual("the other end broke the stream off: new", str(later))

    def test_a_protocol_that_raises_is_logged_and_the_others_go_on(self) -> None:
        """A bug in one connection is not one of the node."""

        class Broken(Talk):
            def dataReceived(self, data: bytes) -> None:
                """A bug."""
                raise ZeroDivisionError

        simulation = self.simulate()
        self.errors_expected = True
        agent, connector, _ = self.trio(simulation)
        connector.unserve("web")
        connector.serve_protocol("web", Talks(Broken))
        self.talk(simulation, agent).transport.write(b"hello")
        simulation.network.run(1.0)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual({"StreamData": 1}, dict(connector.driver.errors))
        self.talk(simulation, agent)
