"""A real InfluxDB 1.x, as Debian packages it, in a folder. It knows no users, unless told to: any token is good."""

from pathlib import Path

from servers.influxd import InfluxServer
from servers.server_process import cache_folder, program, server_port

_CONFIG = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  index-version = "tsi1"
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
  auth-enabled = {users}
[monitor]
  store-enabled = false
"""


class InfluxServer1(InfluxServer):
    """The same to its clients, but for `api`."""

    api = "v1"

    def __init__(self, folder: Path, *, users: bool = False) -> None:
        self._users = users
        super().__init__(folder)

    def _command(self, folder: Path) -> list[str | Path]:
        binary = program("influxdb 1", cache_folder() / "influxd-v1")
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "influxdb.conf"
        users = str(self._users).lower()
        config.write_text(_CONFIG.format(folder=folder, rpc=server_port(), port=self.port, users=users))
        return [binary, "-config", config]

    def start(self, wait: bool = True) -> None:
        """Starts it."""
        self.token_file.write_text("tests:any")
        super().start(wait)
