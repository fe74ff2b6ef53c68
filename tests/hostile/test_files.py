"""Other users of the machine: what they can read, replace or bend of a node's files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.internet.task import Clock
from twisted.python import usage
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from p2pnet.files import find_open_directory, open_log
from p2pnet.identity import Credentials, CredentialsError, Role
from p2pnet.net.clock import utcnow
from p2pnet.observe.eventlog import EventLog
from p2pnet.pki import create_authority, issue, save
from tests.config.test_options import OptionsTestCase, TwistdOptions

NOBODY = 65534  # user id


class FilesCase(SynchronousTestCase):
    """A directory, and the umask of most machines."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(mode=0o755)
        self.addCleanup(os.umask, os.umask(0o022))

    def mode(self, path: Path) -> int:
        """The permission bits of a file."""
        return stat.S_IMODE(path.stat().st_mode)


class EventLogTests(FilesCase):
    """The event log of a node."""

    def open(self, path: Path) -> None:
        """Open and close a log."""
        log = EventLog(path, utcnow, Clock())
        log.open()
        log.close()

    def test_regression_everybody_could_read_a_log(self) -> None:
        """It has names, addresses and services."""
        self.open(self.folder / "events")
        self.assertEqual(0o600, self.mode(self.folder / "events"))

    def test_regression_a_log_followed_a_symbolic_link(self) -> None:
        """Whoever could write to the directory let the log grow in another file."""
        precious, link = self.folder / "precious", self.folder / "events"
        precious.write_text("precious")
        for target in (precious, self.folder / "new"):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            error = self.assertRaises(OSError, self.open, link)
            self.assertIn("a log follows no symbolic link", str(error))
            self.assertIn(str(link), str(error))
        self.assertEqual("precious", precious.read_text())
        self.assertFalse((self.folder / "new").exists())

    def test_a_log_that_others_may_replace_is_refused(self) -> None:
        """They could read the next one."""
        self.folder.chmod(0o777)
        error = self.assertRaises(OSError, self.open, self.folder / "events")
        self.assertIn(f"anybody may write to {self.folder}", str(error))

    def test_an_existing_log_keeps_its_mode(self) -> None:
        """Its owner may share it with a group."""
        path = self.folder / "events"
        path.touch(0o640)
        self.open(path)
        self.assertEqual(0o640, self.mode(path))


class TwistdLogTests(FilesCase, OptionsTestCase):
    """The log that twistd opens, after the options of the role were read."""

    def setUp(self) -> None:
        """The files of a node too."""
        FilesCase.setUp(self)
        OptionsTestCase.setUp(self)
        self.log = self.folder / "node.log"

    def parse(self) -> None:  # type: ignore[override]
        """Parse twistd's command line."""
        TwistdOptions().parseOptions([f"--logfile={self.log}", "intermediate", *self.files])

    def test_only_the_owner_may_read_it_or_its_successors(self) -> None:
        """twistd keeps the mode that it finds, also when it rotates the log."""
        self.parse()
        self.assertEqual(0o600, self.mode(self.log))
        log = LogFile.fromFullPath(str(self.log))
        log.write("line\n")
        log.rotate()
        log.close()
        for path in (self.log, self.log.with_suffix(".log.1")):
            self.assertEqual(0o600, self.mode(path))

    def test_a_symbolic_link_is_refused(self) -> None:
        """Before twistd follows it."""
        self.log.symlink_to(self.folder / "new")
        error = self.assertRaises(usage.UsageError, self.parse)
        self.assertIn(f"--logfile: {self.log}: a log follows no symbolic link", str(error))
        self.assertFalse((self.folder / "new").exists())

    def test_a_directory_for_everybody_is_refused(self) -> None:
        """A link could appear between the check and twistd."""
        self.folder.chmod(0o777)
        error = self.assertRaises(usage.UsageError, self.parse)
        self.assertIn(f"anybody may write to {self.folder}", str(error))


class OpenDirectoryTests(FilesCase):
    """`find_open_directory`: where another user could put a file of his own."""

    def setUp(self) -> None:
        super().setUp()
        self.inner = self.folder / "inner"
        self.inner.mkdir(mode=0o755)
        self.file = self.inner / "file"
        self.file.touch()

    def test_a_closed_directory_is_safe_and_a_group_is_trusted(self) -> None:
        """A missing file is safe as well: whoever reads it finds out."""
        self.inner.chmod(0o775)
        self.assertIsNone(find_open_directory(self.file))
        self.assertIsNone(find_open_directory(self.inner / "missing" / "file"))

    def test_any_directory_above_counts(self) -> None:
        """Its entries can be renamed, whatever their modes."""
        for directory in (self.inner, self.folder):
            directory.chmod(0o757)
            self.assertEqual(directory, find_open_directory(self.file))
            directory.chmod(0o755)

    def test_the_sticky_bit_protects_our_entries(self) -> None:
        """In /tmp nobody else can rename what is ours or root's."""
        self.inner.chmod(0o1777)
        self.assertIsNone(find_open_directory(self.file))

    def test_the_sticky_bit_protects_no_entry_of_others(self) -> None:
        """Who made it can replace it."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give a file away")
        self.inner.chmod(0o1777)
        os.chown(self.file, NOBODY, NOBODY)
        self.assertEqual(self.inner, find_open_directory(self.file))

    def test_a_symbolic_link_is_as_open_as_both_of_its_ends(self) -> None:
        """Either the link or the file can be replaced."""
        other = self.folder / "other"
        other.mkdir(mode=0o755)
        (other / "link").symlink_to(self.file)
        for directory in (other, self.inner):
            self.assertIsNone(find_open_directory(other / "link"))
            directory.chmod(0o777)
            self.assertEqual(directory, find_open_directory(other / "link"))
            directory.chmod(0o755)


class KeyTests(FilesCase):
    """Certificate, key and CA of a node."""

    def setUp(self) -> None:
        """Each in a directory of its own."""
        super().setUp()
        authority = create_authority("example")
        ca, _key = save(self.folder / "ca", "ca", *authority)
        cert, key = save(self.folder / "cert", "alice", *issue(*authority, Role.AGENT, "alice"))
        self.files = {"ca": ca, "cert": cert, "key": self.folder / "key" / "alice.key"}
        self.files["key"].parent.mkdir(mode=0o700)
        key.rename(self.files["key"])

    def load(self) -> Credentials:
        """Load the three files."""
        return Credentials.load(ca=self.files["ca"], cert=self.files["cert"], key=self.files["key"])

    def test_regression_a_key_in_a_directory_for_everybody_was_taken(self) -> None:
        """With another certificate, CA and key the node would belong to another realm."""
        self.load()
        for path in self.files.values():
            path.parent.chmod(0o777)
            error = self.assertRaises(CredentialsError, self.load)
            self.assertIn(f"{path}: others may replace it", str(error))
            self.assertIn(f"`chmod o-w {path.parent}`", str(error))
            path.parent.chmod(0o755)

    def test_new_directories_are_not_for_everybody(self) -> None:
        """Even if the umask would allow it."""
        self.addCleanup(os.umask, os.umask(0))
        made = create_authority("example")
        path, _key = save(self.folder / "a" / "b", "ca", *made)
        self.assertIsNone(find_open_directory(path))
        open_log(path.parent / "log").close()
        self.assertEqual(0o600, self.mode(path.parent / "log"))
