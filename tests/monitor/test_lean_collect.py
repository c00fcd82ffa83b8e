"""Role collect alone stays small: what the other roles import is not loaded."""

import http.client
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from sysfs_tree import PowercapTree

# Not rich and asyncio: structlog imports them wherever they are installed.
HEAVY = (
    "aiokafka",
    "apscheduler",
    "confluent_kafka",
    "ecologits",
    "httpx2",
    "influxdb_client",
    "kafka",
    "numpy",
    "pynvml",  # in the child process of the NVML meter alone
    "starlette",
    "uvicorn",
)
RUN = """
import sys
from monitor.cli.main import cli

cli(["run", "--config", sys.argv[1]], standalone_mode=False)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
LONGEST_SECONDS = 30.0


def test_role_collect_loads_nothing_of_the_other_roles(tmp_path: Path) -> None:
    """A daemon that has metered, answered /metrics and stored its readings has no heavy library in memory."""
    tree = PowercapTree(tmp_path)
    tree.add("intel-rapl:0", "package-0", microjoules=5_000_000)
    port = free_port()
    config = tmp_path / "config.toml"
    config.write_text(
        f'roles = ["collect"]\n[data]\ndirectory = "{tmp_path / "data"}"\n[metrics]\nlisten = "127.0.0.1:{port}"\n'
        f'[collect]\nsysfs = "{tree.sysfs}"\n[collect.cpu_model]\nenabled = false\n'
    )
    command = [sys.executable, "-c", RUN, str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as daemon:
        until = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < until and daemon.poll() is None and status_of(port, "/readyz") != 200:
            tree.advance("intel-rapl:0", 4.0)
            time.sleep(0.1)
        rendered = status_of(port, "/metrics")
        daemon.send_signal(signal.SIGTERM)
        printed, told = daemon.communicate(timeout=LONGEST_SECONDS)
    assert (rendered, daemon.returncode) == (200, 0), told
    loaded = set(printed.split())
    assert {"collectors", "monitor", "msgspec", "sqlite3"} <= loaded
    assert sorted(loaded.intersection(HEAVY)) == []


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def status_of(port: int, path: str) -> int | None:
    """What the daemon's own server answers; None while it does not listen."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
