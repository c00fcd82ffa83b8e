"""Where each measurement stands in InfluxDB, and what a row of it looks like as a line. Pure.

One bucket (a database on 1.x) for each retention: BUCKET, BUCKET_hours, BUCKET_days, BUCKET_provisional and
BUCKET_requests. A row is written with its whole set of fields: those that are not known are named in the text field
`unknown`, so that no value of an earlier writing is ever taken for one of this.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from collectors.units import UnixSeconds
from monitor.core.points import BOOKS, MEASUREMENTS, PROVISIONAL, REQUEST_ENERGY, Measurement, Row
from monitor.store.line_protocol import field_pairs, nanoseconds, quoted, series
from monitor.store.protocol import Resolution

SECOND: Final = 1_000_000_000
MARK: Final = "provisional_mark"
ROLLED_UP: Final = "rolled_up"
Part = Literal["", "_hours", "_days", "_provisional", "_requests"]
PARTS: Final[tuple[Part, ...]] = ("", "_hours", "_days", "_provisional", "_requests")
"""What follows the configured bucket's name."""

# Tags whose values never end (a request's id) would make a series each: they are fields.
_REQUEST_TEXTS: Final = ("namespace", "request_id", "attempt")


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How a measurement stands at one resolution. `texts` are tags of ours that are fields there."""

    measurement: Measurement
    part: Part
    tags: tuple[str, ...]
    texts: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All that is read of a point, but for its time."""
        extra = ("version",) if self.versioned else ("window_start",) if self.scattered else ()
        return (*self.tags, *self.texts, *self.measurement.fields, "unknown", *extra)

    @property
    def versioned(self) -> bool:
        """Only points with the version of their window's mark count."""
        return self.part == "_provisional"

    @property
    def scattered(self) -> bool:
        """The points of one time stand at different nanoseconds of its second."""
        return self.part == "_requests"

    @property
    def tie_nanoseconds(self) -> int:
        """Points within as much have the same time, or may have it."""
        return SECOND if self.scattered else 1


@lru_cache
def layout(measurement: Measurement, resolution: Resolution = "window") -> Layout:
    """Raises ValueError where a measurement has no rows of that resolution."""
    if resolution != "window":
        if measurement not in BOOKS:
            raise ValueError(f"{measurement.name} is not rolled up")
        rolled: Part = "_hours" if resolution == "hour" else "_days"
        return Layout(measurement=measurement, part=rolled, tags=measurement.tags)
    if measurement == REQUEST_ENERGY:
        tags = tuple(tag for tag in measurement.tags if tag not in _REQUEST_TEXTS)
        return Layout(measurement=measurement, part="_requests", tags=tags, texts=_REQUEST_TEXTS)
    part: Part = "" if measurement in BOOKS else "_provisional" if measurement in PROVISIONAL else "_days"
    return Layout(measurement=measurement, part=part, tags=measurement.tags)


def lines(rows: Iterable[Row], resolution: Resolution = "window") -> dict[Part, list[str]]:
    """The lines of rows that are not provisional, by where they go. Raises ValueError for a row of another shape."""
    found: dict[Part, list[str]] = {}
    requests = []
    for row in rows:
        place = layout(MEASUREMENTS[row.measurement], resolution)
        if place.versioned:
            raise ValueError(f"{row.measurement}: provisional rows are written by replace_provisional")
        if place.scattered:
            requests.append(row)
        else:
            found.setdefault(place.part, []).append(_line(place, row))
    if requests:
        found["_requests"] = _scattered(requests)
    return found


def provisional_lines(host: str, window_start: UnixSeconds, rows: Sequence[Row], version: int) -> list[str]:
    """The rows of a window, and behind them the mark that makes these the only ones that count."""
    counts = {measurement.name: 0 for measurement in PROVISIONAL}
    made = []
    for row in rows:
        counts[row.measurement] += 1
        made.append(_line(layout(MEASUREMENTS[row.measurement]), row, f"version={version}i"))
    fields = ",".join((f"version={version}i", *(f"{name}={count}i" for name, count in counts.items())))
    made.append(f"{series(MARK, ('host',), (host,))} {fields} {nanoseconds(window_start)}")
    return made


def rolled_up_lines(starts: Iterable[UnixSeconds], resolution: Resolution, hosts: Iterable[str]) -> list[str]:
    """That these hosts' hours (or days) have been rolled up."""
    named = sorted(hosts)
    return [
        f"{series(ROLLED_UP, ('host', 'resolution'), (host, resolution))} done=1i {nanoseconds(start)}"
        for start in starts
        for host in named
    ]


def _line(place: Layout, row: Row, *extra: str, at: int | None = None) -> str:
    measurement = place.measurement
    values = dict(zip(measurement.tags, row.tags, strict=True)) if place.texts else {}
    tags = tuple(values[name] for name in place.tags) if place.texts else row.tags
    texts = [f"{name}={quoted(values[name])}" for name in place.texts]
    known = field_pairs(measurement, row)
    unknown = ""
    if len(known) < len(row.fields):
        named = zip(measurement.fields, row.fields, strict=True)
        unknown = ",".join(name for name, value in named if value is None)
    fields = ",".join((*texts, *known, f'unknown="{unknown}"', *extra))
    return f"{series(measurement.name, place.tags, tags)} {fields} {nanoseconds(row.time) if at is None else at}"


def _scattered(rows: Iterable[Row]) -> list[str]:
    """Requests of one series and second, each at a nanosecond of its own, told by its identity; ties go on to the next.

    Written again, a window's requests stand where they stood, also beside requests that came late: what may be taken
    up by a set of them is taken up by any larger set. The rows of a host's window must come in one writing.
    """
    place = layout(REQUEST_ENERGY)
    taken: dict[tuple[int, tuple[str, ...]], set[int]] = {}
    made = []
    kept = [REQUEST_ENERGY.tags.index(name) for name in place.tags]
    for row in sorted(rows, key=lambda each: (each.time, each.tags)):
        second = int(row.time // 1)
        used = taken.setdefault((second, tuple(row.tags[index] for index in kept)), set())
        digest = blake2b(msgspec.msgpack.encode((row.time, row.tags)), digest_size=8).digest()
        slot = int.from_bytes(digest) % SECOND
        while slot in used:
            slot = (slot + 1) % SECOND
        used.add(slot)
        made.append(_line(place, row, f"window_start={row.time!r}", at=second * SECOND + slot))
    return made
