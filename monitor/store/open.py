"""The store that the configuration names. In: the configuration, and where the embedded one would be. Out: a Store."""

from pathlib import Path

from monitor.config.sections import Config
from monitor.store.protocol import Store
from monitor.store.quarantine import Quarantine
from monitor.store.retention import retention_of


def open_store(config: Config, path: Path, *, read_only: bool = False, quarantine: Quarantine | None = None) -> Store:
    """`path` is the file of the embedded store; `quarantine` gets the rows that InfluxDB will never take.

    Raises StoreUnavailable where the file or the token cannot be read. That a server answers is not asked here.
    """
    if config.store.kind == "influxdb":
        from monitor.store.influx import InfluxStore

        return InfluxStore(config.influxdb, quarantine=quarantine or Quarantine())
    from monitor.store.sqlite import SqliteStore

    return SqliteStore(path, retention=retention_of(config), read_only=read_only)
