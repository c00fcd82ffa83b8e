"""Orders that a person leaves for a running daemon, as small files in the data folder: it alone writes the log."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import structlog

from collectors.units import UnixSeconds
from monitor.log.codec import Restate, restate_record
from monitor.log.protocol import Log

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


def carry_out_orders(folder: Path, log: Log, now: UnixSeconds) -> int:
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
