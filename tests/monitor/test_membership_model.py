"""The rules of membership, marks and restating against a small model of them, and the books under random kills.

The model looks at the whole log at once: it sorts records by the log time at which they stand, and knows neither
positions nor commits nor what is open. It shares with the ledger the arithmetic of one window, `account`, and no more.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, fsum, inf, nextafter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.readings import Device, EnergyReading, HostProfile
from monitor.core.account import Account, account
from monitor.core.emissions.factors import Intensity
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.core.points import BOOKS, ENERGY, METER, REQUEST_ENERGY, RESTATEMENT, TOO_LATE, USAGE, Row
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of
from monitor.ledger.ledger import Ledger
from monitor.log.codec import ReadingBatch, Restate, readings_record, restate_record, tick_record, usage_record
from monitor.log.protocol import Append
from monitor.log.sqlite import SqliteLog
from monitor.store.sqlite import SqliteStore

WINDOW, HORIZON, MARK, RESTATE = 10.0, 60.0, 60.0, 300.0
TERMS = Accounting(window_seconds=WINDOW, horizon_seconds=HORIZON, mark_seconds=MARK, restate_seconds=RESTATE)
MIDNIGHT = 86_400.0 * 20_000
FINAL = (*BOOKS, REQUEST_ENERGY, RESTATEMENT, TOO_LATE)
REACH = 31
"""A parent's reading may be 300 s long, so it reaches 30 whole windows and a part of one."""
FACTS = Facts([(0.0, Intensity(zone="FR", grams_per_kwh=50.0, source="test"))])

_GPUS = tuple(Device(id=f"g{n}", kind="gpu", idle_watts=50.0, parent="n0") for n in range(2))
FAMILY = HostProfile(host="a", zone="FR", pue=1.5, devices=(*_GPUS, Device(id="n0", kind="node", idle_watts=20.0)))
FLAT = HostProfile(host="b", devices=(Device(id="g0", kind="gpu"), Device(id="n0", kind="cpu", idle_watts=20.0)))
BARE = HostProfile(host="b", devices=(Device(id="g0", kind="gpu"),))
"""As FLAT, by a daemon that did not know what n0 is: its rows are then of another kind."""

Said = ReadingBatch | list[Usage] | Restate | bytes | None
Log = list[tuple[float, Said]]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """What stands in a log and when: around midnight, with what came late, twice, or in contradiction."""
    log: Log = []
    now = MIDNIGHT - draw(st.sampled_from([30.0, 100.0, 400.0, 3_700.0]))
    for _ in range(draw(st.integers(1, 40))):
        now += draw(st.sampled_from([0.0, 0.0, 1.0, 5.0, 10.0, 10.0, 30.0, 70.0, 200.0]))
        kind = draw(st.sampled_from(["readings"] * 4 + ["usage"] * 4 + ["again"] * 2 + ["tick", "restate", "garbage"]))
        if kind == "readings":
            log.append((now, draw(batches(now))))
        elif kind == "usage":
            log.append((now, draw(st.lists(usages(now), min_size=1, max_size=3).map(_of_one_host))))
        elif kind == "again" and log:
            log.append((now, draw(st.sampled_from(log))[1]))
        elif kind == "restate":
            start = now - draw(st.sampled_from([30.0, 120.0, 500.0]))
            host, length = draw(st.sampled_from("ab")), draw(st.sampled_from([10.0, 45.0, 100.0]))
            log.append((now, Restate(host=host, start=start, end=start + length, reason="asked")))
        else:
            log.append((now, b"\xc1" if kind == "garbage" else None))
    log.append((now + draw(st.sampled_from([0.0, 55.0, 90.0, 400.0])), None))
    return log


AGO = st.sampled_from([-8.0, 0.0, 0.0, 3.0, 10.0, 10.0, 25.0, 60.0, 75.0, 130.0, 240.0, 420.0])


@st.composite
def batches(draw: st.DrawFn, now: float) -> ReadingBatch:
    """Readings of one host, on a grid coarse enough for them to meet."""
    profile = draw(st.sampled_from([FAMILY, FAMILY, FLAT, BARE]))
    readings = []
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.sampled_from([5.0, 10.0, 10.0, 17.5, 30.0, 200.0]))
        start = floor((now - draw(AGO) - length) / 5.0) * 5.0
        device = draw(st.sampled_from(["g0", "g0", "g1", "n0"] if profile is FAMILY else ["g0", "n0"]))
        joules = draw(st.sampled_from([0.0, 300.0, 2_000.0, 1.0 / 3.0]))
        method = draw(st.sampled_from(["counter", "counter", "modelled", "recovered"]))
        readings.append(
            EnergyReading(device=device, start=start, end=start + length, energy_joules=joules, method=method)
        )
    return ReadingBatch(profile=profile, readings=tuple(readings))


@st.composite
def usages(draw: st.DrawFn, now: float) -> Usage:
    """A request: short, long, or of no length, of one of a few ids."""
    end = floor(now - draw(AGO))
    return Usage(
        host=draw(st.sampled_from("ab")),
        namespace="",
        request_id=draw(st.sampled_from("rstu")),
        model=draw(st.sampled_from(["m", "llama-8b"])),
        team=draw(st.sampled_from(["blue", "red"])),
        devices=draw(st.sampled_from([None, (), ("g0",), ("g0", "g1")])),
        weight=draw(st.sampled_from([1.0, 0.5])),
        start=end - draw(st.sampled_from([0.0, 2.0, 8.0, 33.0, 180.0])),
        end=end,
        input_tokens=draw(st.sampled_from([None, 100])),
        output_tokens=draw(st.sampled_from([None, 30])),
    )


def _of_one_host(found: list[Usage]) -> list[Usage]:
    return [usage for usage in found if usage.host == found[0].host]


def _append(stamp: float, said: Said) -> Append:
    if isinstance(said, ReadingBatch):
        return readings_record(said, stamp)
    if isinstance(said, Restate):
        return restate_record(said, stamp)
    if isinstance(said, bytes):
        return Append(stream="usage", key="a", schema="usage.v1", body=said, stamp=stamp)
    return tick_record("", stamp) if said is None else usage_record(said[0].host, said, stamp)


# --- the model --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One reading, request or order that counts, and where it stands."""

    at: float
    host: str
    thing: EnergyReading | Usage | Restate
    profile: HostProfile | None
    windows: range

    @property
    def touched(self) -> range:
        """The windows whose account it may change: a parent's part reaches as far as the parent's readings do."""
        more = REACH if self.host == "a" and isinstance(self.thing, EnergyReading) else 0
        return range(self.windows.start - more, self.windows.stop + more)


def _entries(log: Log) -> list[Entry]:
    """All that no conflict takes out, in the order of the log."""
    seen: list[tuple[float, object, object]] = []
    found: list[Entry] = []
    for at, said in log:
        for identity, thing, profile in _parts(said):
            host = profile.host if profile else thing.host
            contradicted = any(
                other == identity and content != thing and stood >= at - HORIZON for stood, other, content in seen
            )
            if not isinstance(thing, Restate):
                seen.append((at, identity, thing))
            if not contradicted:
                found.append(Entry(at, host, thing, profile, _windows(thing)))
    return found


def _parts(said: Said) -> Iterator[tuple[object, Any, HostProfile | None]]:
    if isinstance(said, ReadingBatch):
        for reading in said.readings:
            yield (said.profile.host, reading.device, reading.start), reading, said.profile
    elif isinstance(said, list):
        yield from ((("usage", usage.identity), usage, None) for usage in said)
    elif isinstance(said, Restate):
        yield None, said, None


def _windows(thing: EnergyReading | Usage | Restate) -> range:
    end = nextafter(thing.end, inf) if isinstance(thing, Usage) else thing.end
    return range(floor(thing.start / WINDOW), ceil(end / WINDOW))


class Model:
    """The books that a log must lead to."""

    def __init__(self, log: Log) -> None:
        self.entries = _entries(log)
        self.end = log[-1][0]
        self.rows: dict[tuple[str, float, tuple[str, ...]], Row] = {}
        self._accounts: dict[tuple[str, int, float], Account] = {}
        touched = {(window, entry.host) for entry in self.entries for window in entry.touched}
        for window, host in sorted(touched):
            if self.line(window) <= self.end:
                self._put(self.account(host, window, self.line(window)).rows)
        for mark in _steps(log[0][0], self.end):
            for host in "ab":
                self._mark(mark, host, sorted(window for window, other in touched if other == host))

    @staticmethod
    def line(window: int) -> float:
        """The log time of its last moment in the final account."""
        return (window + 1) * WINDOW + HORIZON

    def account(self, host: str, window: int, line: float) -> Account:
        """The account of what stands before the line, first come first of equal content."""
        key = (host, window, line)
        if key not in self._accounts:
            held = [entry for entry in self.entries if entry.host == host and entry.at < line]
            readings: dict[object, Entry] = {}
            asked: dict[object, Usage] = {}
            for entry in held:
                if isinstance(entry.thing, EnergyReading):
                    readings.setdefault(entry.thing, entry)
                elif isinstance(entry.thing, Usage):
                    asked.setdefault(repr(entry.thing), entry.thing)
            told = [(entry.windows, Told(entry.thing, entry.profile)) for entry in readings.values()]

            def nearby(device: str, start: float, end: float) -> list[Told]:
                over = range(floor(start / WINDOW), ceil(end / WINDOW))
                return [
                    each
                    for windows, each in told
                    if each.reading.device == device and windows.start < over.stop and over.start < windows.stop
                ]

            self._accounts[key] = account(
                host,
                window * WINDOW,
                (window + 1) * WINDOW,
                readings=[each for windows, each in told if window in windows],
                usages=columns_of([usage for usage in asked.values() if window in _windows(usage)]),
                nearby=nearby,
                intensity_at=FACTS.intensity,
                revision=0,
            )
        return self._accounts[key]

    def _put(self, rows: Sequence[Row]) -> None:
        self.rows.update({(row.measurement, row.time, row.tags): row for row in rows})

    def _mark(self, mark: float, host: str, windows: list[int]) -> None:
        came = [entry for entry in self.entries if entry.host == host and mark - MARK <= entry.at < mark]
        late = [(entry, {w for w in entry.touched if self.line(w) <= entry.at}) for entry in came]
        late = [(entry, final) for entry, final in late if final]
        readings = [entry.thing for entry, _ in late if isinstance(entry.thing, EnergyReading)]
        requests = [entry for entry, _ in late if isinstance(entry.thing, Usage)]
        orders = [entry.thing for entry, _ in late if isinstance(entry.thing, Restate)]
        why = [
            f"{len(some)} late {noun}{'s' * (len(some) != 1)}"
            for some, noun in ((readings, "reading"), (requests, "request"))
            if some
        ]
        reason = ", ".join(why + ["asked"] * bool(orders))
        old, new, restated = [], [], []
        for window in windows:
            before = self.account(host, window, max(self.line(window), mark - MARK))
            now = self.account(host, window, mark)
            wanted = bool(orders) and any(window in final for _, final in late)
            if (
                self.line(window) >= mark
                or (window + 1) * WINDOW < mark - RESTATE
                or not (wanted or not before.equals(now))
            ):
                continue
            rows = [_revised(row, mark) for row in now.rows]
            there = {(row.measurement, row.tags) for row in rows}
            rows += [_zeros(_revised(row, mark)) for row in before.rows if (row.measurement, row.tags) not in there]
            self._put(rows)
            old += before.rows
            new += rows
            restated.append(window)
        if restated:
            sums = (len(readings), len(requests), len(orders), len(restated), _attributed(old), _attributed(new))
            self._put([_notice(RESTATEMENT.name, mark, host, (*map(float, sums), reason), restated)])
        lost = sorted({w for _, final in late for w in final if (w + 1) * WINDOW < mark - RESTATE})
        if lost:
            joules = fsum(reading.energy_joules for reading in readings)
            sums = (len(readings), len(requests), joules, len(lost))
            self._put([_notice(TOO_LATE.name, mark, host, (*map(float, sums), reason), lost)])


def _steps(first: float, last: float) -> Iterator[float]:
    mark = (floor(first / MARK) + 1) * MARK
    while mark <= last:
        yield mark
        mark += MARK


def _notice(name: str, mark: float, host: str, fields: tuple[Any, ...], windows: list[int]) -> Row:
    ends = windows[0] * WINDOW, windows[-1] * WINDOW
    listed = [_runs(windows)] if name == RESTATEMENT.name else []
    return Row(name, mark, (host,), (*fields, *ends, *listed, int(mark)))


def _runs(windows: list[int]) -> str:
    """[4, 5, 6, 9] is "0-2,5"."""
    steps = [window - windows[0] for window in windows]
    starts = [step for step in steps if step - 1 not in steps]
    ends = [step for step in steps if step + 1 not in steps]
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in zip(starts, ends, strict=True))


def _revised(row: Row, mark: float) -> Row:
    return Row(row.measurement, row.time, row.tags, (*row.fields[:-1], int(mark)))


def _zeros(row: Row) -> Row:
    sums = len({each.name: each for each in FINAL}[row.measurement].sums)
    zeros = [None if value is None else 0.0 for value in row.fields[:sums]]
    return Row(row.measurement, row.time, row.tags, (*zeros, *row.fields[sums:]))


def _attributed(rows: Sequence[Row]) -> float:
    return fsum(row.fields[0] for row in rows if row.measurement == "energy" and "attributed" in row.tags)


# --- the ledger -------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process is gone."""


class Fuse:
    """Lets a number of calls through and kills the next one, before or behind what it does; then again."""

    def __init__(self, kills: Sequence[tuple[int, bool]]) -> None:
        self._kills = list(kills)

    def around(self, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """The call, if it lives."""
        left, behind = self._kills[0] if self._kills else (inf, False)
        if left > 0:
            if self._kills:
                self._kills[0] = (int(left) - 1, behind)
            return call(*args, **named)
        self._kills.pop(0)
        if behind:
            call(*args, **named)
        raise Killed


class Mortal:
    """A store or a log whose writing calls a fuse watches."""

    WATCHED = ("write", "replace_provisional_pages", "mark_rolled_up", "commit", "reject")

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name not in self.WATCHED:
            return call
        return lambda *args, **named: self._fuse.around(call, *args, **named)


@dataclass(frozen=True)
class Life:
    """How the log is read: what is appended before each step, how far the steps go, and what kills."""

    portions: tuple[int, ...] = ()
    limits: tuple[int, ...] = (2_000,)
    kills: tuple[tuple[int, bool], ...] = ()
    reborn: bool = True


CALM = Life()
LIVES = st.builds(
    Life,
    portions=st.lists(st.integers(1, 12), max_size=10).map(tuple),
    limits=st.lists(st.integers(1, 50), min_size=1, max_size=6).map(tuple),
    kills=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=8).map(tuple),
    reborn=st.booleans(),
)


@dataclass(frozen=True)
class Kept:
    """What a life left behind."""

    rows: dict[tuple[str, float, tuple[str, ...]], Row]
    dump: list[str]
    letters: set[tuple[str, str, str]]


def keep_books(log: Log, life: Life = CALM) -> Kept:
    """Lets a ledger keep the books of a log through a life, to the log's end."""
    with tempfile.TemporaryDirectory() as folder:
        inner, store = SqliteLog(Path(folder) / "log"), SqliteStore(Path(folder) / "store")
        try:
            _live(log, life, inner, store)
            rows = {
                (row.measurement, row.time, row.tags): row
                for measurement in FINAL
                for row in store.read(measurement, -inf, inf)
            }
            letters = {(each.source, each.position, each.reason) for _, each in inner.rejections(10_000)}
            return Kept(rows, list(store.dump(FINAL)), letters)
        finally:
            store.close()
            inner.close()


def _live(log: Log, life: Life, inner: SqliteLog, store: SqliteStore) -> None:
    fuse = Fuse(life.kills)
    ledger = None
    limits = itertools.cycle(life.limits)
    records = [_append(stamp, said) for stamp, said in log]
    done = 0
    for portion in (*life.portions, len(records)):
        inner.append(records[done : done + portion], 0.0)
        done += portion
        rest = -1
        while rest != 0:
            try:
                ledger = ledger or Ledger(Mortal(inner, fuse), Mortal(store, fuse), TERMS, lambda: FACTS)
                rest = ledger.step(next(limits))
            except Killed:
                ledger = None if life.reborn else ledger


# --- the laws ---------------------------------------------------------------------------------------------------

QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@QUICK
@given(logs())
def test_the_books_are_those_of_the_model(log: Log) -> None:
    """Every final row, revision, restatement and too-late notice is what the rules say, to the bit, and no other."""
    model, kept = Model(log), keep_books(log)
    assert {key: kept.rows.get(key) for key in model.rows} == model.rows
    assert kept.rows.keys() == model.rows.keys()


@QUICK
@given(logs(), LIVES)
def test_no_life_changes_the_books(log: Log, life: Life) -> None:
    """Killed anywhere, read in any portions, begun again: the same bytes, roll-ups and dead letters included."""
    calm, stormy = keep_books(log), keep_books(log, life)
    assert stormy.dump == calm.dump
    assert stormy.letters == calm.letters


@QUICK
@given(logs(), st.randoms(use_true_random=False))
def test_on_time_records_may_come_in_any_order_and_any_batches(log: Log, chance: Any) -> None:
    """Records of one log time say the same whichever comes first and however they are batched."""
    unanimous = [entry for entry in _entries(log) if not isinstance(entry.thing, Restate) and _alone(entry, log)]
    there = {id(entry.thing) for entry in unanimous}
    singly: Log = []
    for at, said in log:
        if isinstance(said, ReadingBatch):
            split = [
                ReadingBatch(profile=said.profile, readings=(each,)) for each in said.readings if id(each) in there
            ]
            singly += [(at, batch) for batch in split]
        elif isinstance(said, list):
            singly += [(at, [usage]) for usage in said if id(usage) in there]
        elif not isinstance(said, bytes):
            singly.append((at, said))
    shuffled = sorted(chance.sample(singly, len(singly)), key=lambda record: record[0])
    assert keep_books(shuffled).dump == keep_books(singly).dump


def _alone(entry: Entry, log: Log) -> bool:
    """Whether nothing in the log contradicts or repeats it: of those the first one counts, and order matters."""
    mine = next(identity for _, said in log for identity, thing, _ in _parts(said) if thing is entry.thing)
    return sum(identity == mine for _, said in log for identity, _, _ in _parts(said)) == 1


def test_the_model_sees_what_it_is_for() -> None:
    """Among the logs drawn are restated windows, notices of what is too late, rows put to zero, and conflicts."""
    reading = EnergyReading(device="g0", start=MIDNIGHT, end=MIDNIGHT + 10.0, energy_joules=300.0, method="counter")
    late = EnergyReading(device="n0", start=MIDNIGHT, end=MIDNIGHT + 5.0, energy_joules=100.0, method="counter")
    newer = EnergyReading(device="n0", start=MIDNIGHT + 5.0, end=MIDNIGHT + 10.0, energy_joules=1.0, method="counter")
    log: Log = [
        (MIDNIGHT + 10.0, ReadingBatch(profile=BARE, readings=(reading, late))),
        (MIDNIGHT + 90.0, ReadingBatch(profile=FLAT, readings=(newer,))),
        (MIDNIGHT + 400.0, None),
        (MIDNIGHT + 410.0, Restate(host="b", start=MIDNIGHT, end=MIDNIGHT + 10.0, reason="asked")),
        (MIDNIGHT + 800.0, None),
    ]
    rows = Model(log).rows
    mark = MIDNIGHT + 120.0
    assert rows[METER.name, MIDNIGHT, ("b", "n0", "gpu")].fields == (0.0, 0.0, 0.0, 0.0, 0.0, "", int(mark))
    assert rows[METER.name, MIDNIGHT, ("b", "n0", "cpu")].fields == (101.0, 101.0, 0.0, 0.0, 10.0, "", int(mark))
    assert rows[RESTATEMENT.name, mark, ("b",)].fields[:4] == (1.0, 0.0, 0.0, 1.0)
    assert rows[TOO_LATE.name, MIDNIGHT + 420.0, ("b",)].fields[:4] == (0.0, 0.0, 0.0, 1.0)
    assert {name for name, _, _ in rows} == {ENERGY.name, METER.name, RESTATEMENT.name, TOO_LATE.name}
    assert USAGE.name not in {name for name, _, _ in rows}
