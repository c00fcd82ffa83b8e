"""The log and the store of one data folder, for all roles in one process.

data folder --> log.db (SqliteLog), store.db or what [store] names --> Query
"""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from monitor.config.sections import Config
from monitor.core.band import Gains
from monitor.core.questions import Principal
from monitor.log.sqlite import SqliteLog
from monitor.query import Query
from monitor.store.open import open_store
from monitor.store.protocol import Store
from monitor.store.quarantine import Quarantine

LOG_FILE: Final = "log.db"
STORE_FILE: Final = "store.db"
ALERTS_FILE: Final = "alerts.json"
LOCAL_ADMIN: Final = Principal(name="local", role="admin")
"""Who may read the files may see everything in them."""


class Embedded:
    """The log and the store of one data folder. Only one process may have it open for writing."""

    def __init__(self, folder: Path, config: Config) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.folder = folder
        self.store_path = folder / STORE_FILE
        self.log = SqliteLog(folder / LOG_FILE)
        self.quarantine = Quarantine()
        self.store: Store = open_store(config, self.store_path, quarantine=self.quarantine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()
        self.log.close()

    def query(self) -> Query:
        """The gate to what is stored."""
        return Query(self.store, rejected=self.log.rejected, owners=owners_of(self.config), gains=gains_of(self.config))


def owners_of(config: Config) -> dict[tuple[str, str], str]:
    """Who owns a device's idle energy, as (host, device) -> team; device "" is the whole host.

    `[idle] owners` has the last word ({"host/device": team} or {"host": team}), then a deployment's `team_owner`.
    """
    owners = {
        (host, device): deployment.team_owner
        for deployment in config.deployments
        if deployment.team_owner is not None
        for host in deployment.hosts
        for device in deployment.devices
    }
    for place, team in config.idle.owners.items():
        host, _, device = place.partition("/")
        owners[host, device] = team
    return owners


def gains_of(config: Config) -> Gains:
    """How far meters may be off, by [accuracy]."""
    of = {}
    for place, gain in config.accuracy.gains.items():
        host, _, device = place.partition("/")
        of[host, device] = gain
    return Gains(ratio=config.accuracy.gain, of=of)
