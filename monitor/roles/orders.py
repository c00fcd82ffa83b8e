"""Orders that a person leaves for a running daemon, as small files in the data folder: it alone writes the log."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import structlog

from collectors.clock import rfc3339
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.core.points import METER, USAGE
from monitor.log.codec import Restate, restate_record
from monitor.log.protocol import LogWriter
from monitor.log.sqlite import SqliteLog
from monitor.roles.embedded import LOG_FILE, STORE_FILE
from monitor.store.protocol import Store
from monitor.store.sqlite import SqliteStore

FOLDER = "orders"


def leave_order(folder: Path, order: Restate) -> Path:
    """Leaves the order where the daemon of this data folder finds it; the same order twice is one."""
    body = msgspec.json.encode(order)
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    path = place / f"restate-{sha256(body).hexdigest()[:16]}.json"
    draft = path.with_suffix(".new")
    draft.write_bytes(body)
    return draft.replace(path)


def mistake_in(order: Restate, folder: Path, config: Config) -> str | None:
    """Why there is nothing to restate by this order, or None. Reads the books of the data folder."""
    if not (folder / STORE_FILE).exists() or not (folder / LOG_FILE).exists():
        return f"{folder} holds no books"
    store, log = SqliteStore(folder / STORE_FILE, read_only=True), SqliteLog(folder / LOG_FILE, read_only=True)
    try:
        return mistake_in_books(order, store, log.log_time() or 0.0, config)
    finally:
        log.close()
        store.close()


def mistake_in_books(order: Restate, store: Store, log_time: UnixSeconds, config: Config) -> str | None:
    """The same, of any store, at a log time."""
    hosts = store.last_times(METER, "host").keys() | store.last_times(USAGE, "host").keys()
    if order.host not in hosts:
        return f"no host {order.host!r} in the books; there are: {', '.join(sorted(hosts)) or 'none'}"
    here = {"host": (order.host,)}
    if not any(store.read(each, order.start, order.end, where=here, limit=1) for each in (METER, USAGE)):
        return f"host {order.host!r} has no final window that starts between --from and --to"
    oldest = log_time - config.log.restate_within_seconds
    if order.end <= oldest:
        return f"too old: windows are restated up to [log] restate_within, back to {rfc3339(oldest)}"
    return None


def carry_out_orders(folder: Path, log: LogWriter, now: UnixSeconds) -> int:
    """Puts waiting orders into the log and takes them away; returns how many. One done twice changes nothing."""
    count = 0
    for path, order in _waiting(folder):
        if order is not None:
            log.append([restate_record(order)], now)
            count += 1
        path.unlink(missing_ok=True)
    return count


def _waiting(folder: Path) -> Iterator[tuple[Path, Restate | None]]:
    for path in sorted((folder / FOLDER).glob("restate-*.json")):
        try:
            yield path, msgspec.json.decode(path.read_bytes(), type=Restate)
        except msgspec.DecodeError as error:
            structlog.get_logger().warning("order is unreadable and dropped", file=str(path), error=str(error))
            yield path, None
