"""A machine that boots a real systemd around this checkout, in a container of systemd-nspawn; seconds, not minutes.

Its /usr is this machine's, read-only; /opt/wattribute is an environment like the one that docs/install.md makes, with
the packages of the interpreter that runs the tests. It has a loopback network of its own.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
POLL_SECONDS = 0.05
CAP_SYS_ADMIN = 21


def missing() -> str | None:
    """Why no machine can be booted here, None where it can."""
    if os.geteuid() != 0:
        return "a real systemd is booted as root only"
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    if not int(held.split()[1], 16) >> CAP_SYS_ADMIN & 1:
        return "a container that may not mount boots no machine (CAP_SYS_ADMIN)"
    for tool in ("systemd-nspawn", "nsenter"):
        if shutil.which(tool) is None:
            return f"no {tool} here; on Debian: apt-get install systemd-container util-linux"
    return None


def make_root(root: Path, *, files: Mapping[str, str]) -> None:
    """The machine's file system: what systemd needs to boot, and these files, path below the root -> text."""
    for folder in ("dev", "etc", "opt", "proc", "run", "sys", "tmp", "var/log/journal"):
        (root / folder).mkdir(parents=True)
    root.chmod(0o755)  # a temporary folder is its maker's alone; the daemon's user must get through
    for link in ("bin", "sbin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    for name in ("passwd", "group", "nsswitch.conf", "os-release"):
        shutil.copy(Path("/etc", name), root / "etc" / name)
    (root / "etc/machine-id").touch()
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def environment_files() -> dict[str, str]:
    """/opt/wattribute as `python -m venv` and pip would have made it; its packages are mounted beside it."""
    packages = f"opt/wattribute/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    return {
        "opt/wattribute/pyvenv.cfg": f"home = {_interpreter_home()}/bin\ninclude-system-site-packages = false\n",
        f"{packages}/checkout.pth": "/opt/checkout\n/opt/packages\n",
        "opt/wattribute/bin/wattribute": (
            "#!/opt/wattribute/bin/python\nimport sys\n\nfrom monitor.cli.main import main\n\nsys.exit(main())\n"
        ),
    }


def finish_environment(root: Path) -> None:
    """What files alone cannot be: the link to the interpreter, and the command's mode."""
    binaries = root / "opt/wattribute/bin"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (binaries / "python").symlink_to(f"{_interpreter_home()}/bin/{version}")
    (binaries / "wattribute").chmod(0o755)
    # A shared libpython is found by the path it was built for, which is not there: before /usr's, then.
    (root / "etc/ld.so.conf").write_text(f"{_interpreter_home()}/lib\n")


def _interpreter_home() -> str:
    """Where the machine has the interpreter: a system's own is in /usr, any other is mounted."""
    return "/usr" if sys.base_prefix == "/usr" else "/opt/python"


class Machine:
    """A booted machine; use as a context manager. `run` is what root does in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._container: subprocess.Popen[str] | None = None
        self._init = 0

    def __enter__(self) -> "Machine":
        mounts = ["/usr", f"{REPOSITORY}:/opt/checkout", f"{sysconfig.get_path('purelib')}:/opt/packages"]
        if _interpreter_home() != "/usr":
            mounts.append(f"{sys.base_prefix}:/opt/python")
        options = ["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--private-network"]
        self._container = subprocess.Popen(
            ["systemd-nspawn", *options, f"--directory={self.root}", *(f"--bind-ro={mount}" for mount in mounts)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self.wait_for(lambda: self._find_init() and self.systemctl("is-system-running") != "", "systemd to answer")
            self.run("ldconfig")
        except BaseException:  # whatever ends the start, Ctrl-C too: no machine is left running
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._container is not None
        self._container.terminate()  # nspawn asks the machine to power off
        try:
            self._container.communicate(timeout=20.0)
        except subprocess.TimeoutExpired:
            self._container.kill()
            self._container.communicate()

    def run(self, *command: str, check: bool = True) -> str:
        """What the command, run as root inside, printed on standard output."""
        outcome = subprocess.run(
            ["nsenter", f"--target={self._init}", "--all", *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=30.0,
        )
        assert not check or outcome.returncode == 0, f"{command}: {outcome.stdout}{outcome.stderr}\n{self.journal()}"
        return outcome.stdout.strip()

    def systemctl(self, *arguments: str) -> str:
        """What systemctl printed, whatever its exit code: `is-active` fails where a unit is not."""
        return self.run("systemctl", *arguments, check=False)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def journal(self, unit: str | None = None) -> str:
        """The machine's journal, from outside, so that it can be read when nothing in there works."""
        only = [] if unit is None else [f"--unit={unit}"]
        command = ["journalctl", f"--directory={self.root}/var/log/journal", "--no-pager", "--output=short", *only]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30.0).stdout

    def wait_for(self, holds: Callable[[], object], what: str, *, seconds: float = 15.0) -> None:
        """Returns once the condition holds; fails with the journal where it does not in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self._container is not None
            assert self._container.poll() is None, f"the machine is down: {self._container.communicate()[0]}"
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}\n{self.journal()}"
            time.sleep(POLL_SECONDS)

    def _find_init(self) -> int:
        """The machine's process 1 as this machine numbers it, 0 while there is none."""
        assert self._container is not None
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        named = {Path(f"/proc/{child}/comm").read_text().strip(): int(child) for child in children}
        self._init = named.get("systemd", 0)
        return self._init
