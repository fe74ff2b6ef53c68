"""Listeners: what people write, and what Twisted reads."""

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.net.listener import BACKLOG, server_description

END = f":backlog={BACKLOG}"


class DescriptionTests(SynchronousTestCase):
    """Endpoint strings of listeners."""

    def test_an_address_may_come_first(self) -> None:
        """With brackets around IPv6, as in URLs."""
        for listen, description in {
            "tcp:127.0.0.1:6081": "tcp:6081:interface=127.0.0.1",
            "tcp:0.0.0.0:6081": "tcp:6081:interface=0.0.0.0",
            "tcp:[::1]:8080": r"tcp:8080:interface=\:\:1",
            "tcp6:[fe80::1%eth0]:8080": r"tcp6:8080:interface=fe80\:\:1%eth0",
        }.items():
            self.assertEqual(description + END, server_description(listen))

    def test_a_port_alone_is_on_loopback(self) -> None:
        """Whatever else is said of it."""
        for listen, description in {
            "tcp:6081": "tcp:6081:interface=127.0.0.1" + END,
            "tcp6:6081": r"tcp6:6081:interface=\:\:1" + END,
            "tcp:port=6081": "tcp:port=6081:interface=127.0.0.1" + END,
            "tcp:6081:backlog=7": "tcp:6081:backlog=7:interface=127.0.0.1",
            "ssl:443:privateKey=key.pem": "ssl:443:privateKey=key.pem:interface=127.0.0.1" + END,
        }.items():
            self.assertEqual(description, server_description(listen))

    def test_whatever_twisted_reads_as_it_is_stays(self) -> None:
        """An interface, in either way; sockets without one; kinds of others."""
        for listen in ("tcp:6081:interface=10.0.0.1", "tcp:6081:10.0.0.1", "unix:/run/web.sock"):
            self.assertEqual(listen + END, server_description(listen))
        for listen in ("systemd:domain=INET:index=0", "p2p:web:config=agent.toml", "later:x"):
            self.assertEqual(listen, server_description(listen))
