"""What every meter and role stands on: clock, data folder, ports, user. Looks only. Out: findings for `doctor`."""

import ctypes
import errno
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from collectors.errors import CollectorError
from collectors.http_page import KeptConnection
from collectors.meter import Finding
from monitor.config.sections import Config

LEAST_FREE_BYTES: Final = 2**30
ANSWER_SECONDS: Final = 2.0
_STA_UNSYNC: Final = 0x40
"""linux/timex.h: the clock is not synchronised."""
_TIMEX_BYTES: Final = 512

State = Literal["ok", "missing", "warning", "broken"]


def clock(run: Path = Path("/run")) -> Sequence[Finding]:
    """Whether something keeps the clock right: readings and requests of several hosts meet by their times alone."""
    synchronised = kernel_synchronised()
    if (run / "systemd/timesync/synchronized").exists():
        return [_finding("clock", "ok", "synchronised by systemd-timesyncd")]
    if synchronised:
        return [_finding("clock", "ok", "synchronised, says the kernel")]
    if any((run / daemon).exists() for daemon in ("chrony/chronyd.pid", "chronyd.pid")):
        return [_finding("clock", "warning", "chronyd runs, but has not set the clock yet", "chronyc waitsync 6")]
    what = "not synchronised, as far as this machine knows; requests are then charged for the wrong seconds"
    return [_finding("clock", "warning", what, "timedatectl set-ntp true")]


def kernel_synchronised() -> bool:
    """What adjtimex(2) says; asking with modes = 0 changes nothing and needs no right."""

    class Timex(ctypes.Structure):
        _fields_ = (
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("frequency", ctypes.c_long),
            ("max_error", ctypes.c_long),
            ("estimated_error", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_byte * _TIMEX_BYTES),
        )

    said = Timex()
    asked: int = ctypes.CDLL(None).adjtimex(ctypes.byref(said))
    return asked >= 0 and not said.status & _STA_UNSYNC


def event_files(config: Config) -> Sequence[Finding]:
    """Each file of request events that is followed: there, and readable."""
    found = []
    for source in config.sources:
        if source.kind != "file" or source.path is None:
            continue
        subject = f"source {source.name}"
        if not source.path.exists():
            what = f"{source.path} is not there; it is read as soon as it is, from its beginning"
            found.append(_finding(subject, "missing", what, f"ls -ld {source.path.parent}"))
        elif not os.access(source.path, os.R_OK):
            what = f"{source.path} may not be read by {user_name()}"
            found.append(_finding(subject, "broken", what, f"setfacl -m u:{user_name()}:r {source.path}"))
        else:
            found.append(_finding(subject, "ok", f"{source.path} can be read"))
    return found


def data_folder(folder: Path) -> Sequence[Finding]:
    """Whether log and books can be written there, and whether there is room."""
    subject, name = str(folder), user_name()
    mend = f"install -d -o {name} -m 750 {folder}"
    if folder.exists() and not folder.is_dir():
        return [_finding(subject, "broken", "is no folder", "another directory under [data]")]
    if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return [_finding(subject, "broken", f"{name} may not write here", f"chown -R {name} {folder}")]
    standing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if standing != folder and not os.access(standing, os.W_OK | os.X_OK):
        what = f"is not there, and {name} may not make it; the service's unit makes it"
        return [_finding(subject, "missing", what, mend)]
    free_bytes = shutil.disk_usage(standing).free
    what = f"{'writable' if standing == folder else 'can be made'}, {free_bytes / 2**30:.1f} GiB free"
    if free_bytes < LEAST_FREE_BYTES:
        return [_finding(subject, "warning", what, "make room, or set max_size under [log] to less")]
    return [_finding(subject, "ok", what)]


def ports(config: Config) -> Sequence[Finding]:
    """Each address that the daemon listens on; in use by the daemon itself is as it should be."""
    running = _daemon_answers(config.metrics.listen)
    return [_port(subject, address, running=running) for subject, address in _listeners(config)]


def _listeners(config: Config) -> Iterator[tuple[str, str]]:
    if "web" in config.roles:
        yield "[web] listen", config.web.listen
    yield "[metrics] listen", config.metrics.listen
    if "ingest" in config.roles:
        for source in config.sources:
            if source.kind == "http" and source.listen:
                yield f"source {source.name}", source.listen


def _port(subject: str, address: str, *, running: bool) -> Finding:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, int(port)))
    except OSError as error:
        if error.errno == errno.EADDRINUSE and running:
            return _finding(subject, "ok", f"{address} is in use by the daemon, which runs")
        mend = f"ss -ltnp 'sport = :{port}' tells who has it; or another port"
        return _finding(subject, "broken", f"{address} cannot be listened on: {error.strerror}", mend)
    return _finding(subject, "ok", f"{address} is free")


def _daemon_answers(address: str) -> bool:
    """Whether it is the daemon that listens there: its own account of itself names its process."""
    host, _, port = address.rpartition(":")
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    connection = KeptConnection(f"http://{reached}:{port}/status", timeout_seconds=ANSWER_SECONDS)
    try:
        said = msgspec.json.decode(connection.get().body)
        return isinstance(said, dict) and "pid" in said and "roles" in said
    except (CollectorError, msgspec.DecodeError, UnicodeDecodeError):
        return False
    finally:
        connection.close()


def user() -> Sequence[Finding]:
    """Whose rights were tried."""
    name = user_name()
    if os.geteuid() != 0:
        return [_finding(name, "ok", "all of this was tried with this user's rights; root may read more")]
    what = "root may read what the daemon's user may not, so this is more than the daemon will see"
    return [_finding(name, "warning", what, "sudo -u wattribute wattribute doctor")]


def user_name() -> str:
    """The name of the user who runs this; the number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _finding(subject: str, state: State, what: str, mend: str = "") -> Finding:
    return Finding(area="host", subject=subject, state=state, what=what, mend=mend)
