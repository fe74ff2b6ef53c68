"""What users install: the wheel, or the checkout, with its plugins visible to twistd."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).absolute().parent.parent
SOURCES = (
    "p2pnet",
    "lab",
    "bench",
    "twisted",
    "setup.cfg",
    "pyproject.toml",
    "MANIFEST.in",
    "LICENSE",
)
PLUGINS = ("p2p-agent", "p2p-connector", "p2p-intermediate")
WHERE = """
from twisted.application.service import IServiceMaker
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor as Client
from twisted.internet.interfaces import IStreamServerEndpointStringParser as Server
from twisted.plugin import getPlugins
from twisted.plugins import p2pnet_plugin
import p2pnet
print(p2pnet.__file__)
print(p2pnet_plugin.__file__)
for interface in (Client, Server):
    print([parser.prefix for parser in getPlugins(interface) if parser.prefix == "p2p"])
"""


def run(*command: str | Path, cwd: str | Path) -> str:
    """The output of a command that succeeds."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


class DependencyTests(SynchronousTestCase):
    """What setup.cfg allows is what is tested."""

    def test_the_oldest_versions_are_the_lower_bounds(self) -> None:
        """constraints-oldest.txt pins each requirement to its lower bound."""
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        pattern = re.compile(r"^([\w.-]+)(?:\[\w+\])?>=([\d.]+)(?:,<[\d.]+)?$", re.MULTILINE)
        lines = config["options"]["install_requires"].split("\n")
        required = "\n".join(line for line in lines if line and not line.startswith("#"))
        bounds = dict(pattern.findall(required))
        self.assertEqual(len(bounds), len(required.splitlines()), "one has no lower bound")
        oldest = (ROOT / "constraints-oldest.txt").read_text()
        pins = dict(re.findall(r"^([\w.-]+)==([\d.]+)$", oldest, re.MULTILINE))
        self.assertEqual(bounds, pins)


class PackagingTests(SynchronousTestCase):
    """Each test installs into a fresh environment that borrows the dependencies of this one."""

    def setUp(self) -> None:
        try:
            usable = int(version("setuptools").split(".")[0]) >= 77
        except PackageNotFoundError:
            usable = False
        if not usable:
            raise SkipTest("building needs setuptools 77 or newer in this environment")
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        # A copy, because building leaves files behind, some of which end up in the next wheel.
        self.sources = self.directory / "sources"
        self.sources.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.sources / name)
        (self.sources / "tests").mkdir()
        (self.sources / "tests" / "test_sample.py").touch()

    def build_wheel(self) -> Path:
        """The wheel of the sources."""
        backend = "from setuptools.build_meta import build_wheel; build_wheel('..')"
        run(sys.executable, "-c", backend, cwd=self.sources)
        (wheel,) = self.directory.glob("*.whl")
        return wheel

    def install(self, *what: str | Path) -> Path:
        """The bin directory of a fresh environment in which this is installed."""
        environment = self.directory / "env"
        venv.create(environment, symlinks=True)
        python = environment / "bin" / "python"
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = Path(run(python, "-c", code, cwd=self.directory).strip())
        borrowed = self.directory / "borrowed"
        for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            # Links to all but p2pnet, which may be installed in this environment as well.
            not_ours = shutil.ignore_patterns("*p2pnet*", "dropin.cache")
            shutil.copytree(site, borrowed, False, not_ours, os.symlink, dirs_exist_ok=True)
        (packages / "zz-borrowed.pth").write_text(str(borrowed))
        pip = (python, "-m", "pip", "install", "--no-index", "--no-deps", "--ignore-installed")
        run(*pip, "--no-build-isolation", *what, cwd=self.directory)
        return environment / "bin"

    def assert_plugins(self, programs: Path, origin: Path) -> None:
        """Twisted's programs and endpoint strings know our plugins, which come from `origin`."""
        empty = self.directory / "empty"
        empty.mkdir()
        python = programs / "python"
        twistd = ("-c", "from twisted.scripts.twistd import run; run()")
        for program in (twistd, ("-m", "twisted")):
            commands = run(python, *program, "--help", cwd=empty).partition("Commands:")[2]
            for name in PLUGINS:
                self.assertIn(f" {name} ", commands)
                self.assertIn("--p2p-cert=", run(python, *program, name, "--help", cwd=empty))
        package, plugin, client, server = run(python, "-c", WHERE, cwd=empty).splitlines()
        self.assertEqual(str(origin / "p2pnet" / "__init__.py"), package)
        self.assertEqual(str(origin / "twisted" / "plugins" / "p2pnet_plugin.py"), plugin)
        self.assertEqual(["['p2p']"] * 2, [client, server])
        self.assertIn("Usage: p2pnet", run(programs / "p2pnet", "--help", cwd=empty))
        self.assertIn("--size", run(programs / "p2pnet", "demo", "--help", cwd=empty))

    def test_an_installed_wheel(self) -> None:
        """It has the plugins, the mark of a typed package, and neither lab/ nor bench/."""
        wheel = self.build_wheel()
        names = zipfile.ZipFile(wheel).namelist()
        self.assertIn("p2pnet/py.typed", names)
        self.assertIn("twisted/plugins/p2pnet_plugin.py", names)
        ours = [name for name in names if ".dist-info/" not in name]
        self.assertEqual({"p2pnet", "twisted"}, {name.split("/")[0] for name in ours})
        self.assertEqual(
            sorted(str(path.relative_to(ROOT)) for path in (ROOT / "p2pnet").rglob("*.py")),
            sorted(name for name in ours if name.startswith("p2pnet/") and name.endswith(".py")),
        )
        programs = self.install(wheel)
        (packages,) = self.directory.glob("env/lib/*/site-packages")
        self.assert_plugins(programs, packages)

    def test_an_editable_install(self) -> None:
        """The checkout itself is on the path, where twisted.plugin looks for plugins."""
        self.assert_plugins(self.install("--editable", self.sources), self.sources)
