"""What stands in a log, from a seed: a few hosts for half an hour or so, with all that goes wrong before the log.

Late and cut-off hosts, duplicates, contradictions, ids used again, orders to restate, bodies that nobody can decode,
clocks that step back. Quiet streams get ticks, as the aggregator gives them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import msgspec

from collectors.readings import Device, EnergyReading, HostProfile
from monitor.core.emissions.factors import Intensity
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.core.usage import Usage
from monitor.log.codec import ReadingBatch, Restate, readings_record, restate_record, tick_record, usage_record
from monitor.log.protocol import Append

MIDNIGHT = 86_400.0 * 20_000
FACTS = Facts([(0.0, Intensity(zone="FR", grams_per_kwh=50.0, source="test"))])
GPUS = tuple(Device(id=f"g{n}", kind="gpu", idle_watts=50.0, parent="n0") for n in range(2))
NODE = Device(id="n0", kind="node", idle_watts=20.0)
PROFILES = (
    HostProfile(host="a", zone="FR", pue=1.5, devices=(*GPUS[:1], NODE)),
    HostProfile(host="b", devices=(Device(id="g0", kind="gpu", idle_watts=50.0),)),
    HostProfile(host="c", devices=(Device(id="g0", kind="cpu", idle_watts=30.0),)),
)


@dataclass(frozen=True, slots=True)
class Content:
    """The terms, and the records in the order in which they are appended. The last ones make all final."""

    terms: Accounting
    records: list[Append]
    closing: list[Append]


@dataclass(frozen=True, slots=True)
class _Sent:
    """A record, when it was ready and when it reaches the log."""

    at: float
    record: Append


def content_of(random: Random) -> Content:
    """The content of one schedule."""
    terms = Accounting(
        window_seconds=10.0,
        horizon_seconds=random.choice([60.0, 90.0, 120.0]),
        mark_seconds=random.choice([60.0, 120.0]),
        restate_seconds=random.choice([300.0, 900.0, 3_600.0]),
    )
    edge = MIDNIGHT + random.choice([0.0, 0.0, 3_600.0, 36_000.0])
    begin = edge - random.choice([60.0, 200.0, 400.0])
    end = begin + random.choice([200.0, 400.0, 600.0])
    sent = [each for profile in _profiles(random) for each in _host(random, profile, terms, begin, end)]
    sent += _again(random, sent, terms)
    sent += _orders(random, begin, end)
    sent += _contradiction(random, terms, begin, end)
    sent += [_Sent(at, tick) for at in _times(begin, end + 1.0, 20.0) for tick in ticks(at)]
    sent.sort(key=lambda each: each.at)
    records = [_stamped(random, each) for each in sent]
    return Content(terms, records, _closing(terms, records, end))


def _profiles(random: Random) -> list[HostProfile]:
    """One or two hosts; a host with a family of meters costs most and is in one schedule of three."""
    return random.sample(PROFILES[1:], random.choice([1, 2])) if random.random() < 0.67 else [PROFILES[0]]


def ticks(at: float) -> list[Append]:
    """Log time goes on in both streams."""
    tick = tick_record("", at)
    return [msgspec.structs.replace(tick, stream="readings"), tick]


def _closing(terms: Accounting, records: list[Append], end: float) -> list[Append]:
    """Ticks until all is final, all marks are carried out and every hour and day is over."""
    newest = max(record.stamp or 0.0 for record in records)
    step = terms.mark_seconds / 2.0
    times = [newest + step * count for count in range(1, 9)]
    times += [times[-1] + seconds for seconds in (3_700.0, 3_700.0 + terms.mark_seconds, 90_000.0, 180_000.0)]
    return [tick for at in times for tick in ticks(at)]


def _times(begin: float, end: float, step: float) -> Iterator[float]:
    at = begin
    while at < end:
        yield at
        at += step


def _host(random: Random, profile: HostProfile, terms: Accounting, begin: float, end: float) -> Iterator[_Sent]:
    """One host's readings and requests: often late, perhaps cut off for a while and then heard all at once."""
    cut = random.uniform(begin, end)
    back = cut + random.choice([0.0, 0.0, 90.0, 200.0, 500.0])
    late = [0.0, 1.0, 3.0, 3.0, 8.0, 20.0, terms.horizon_seconds, terms.horizon_seconds * 2.5]
    weights = [4, 4, 4, 4, 4, 2, 1, 1] if random.random() < 0.5 else [9, 9, 9, 9, 9, 1, 0, 0]

    def arrival(ready: float) -> float:
        at = ready + random.choices(late, weights)[0]
        return back + (at - cut) * 0.01 if cut <= at < back else at

    at = begin
    while at < end:
        length = random.choice([10.0, 10.0, 20.0, 35.0])
        yield _Sent(arrival(at + length), _batch(random, profile, at, length))
        at += length + random.choice([0.0, 30.0, 60.0, 120.0])
    for _ in range(random.choice([3, 6, 9])):
        usages = [
            _usage(random, profile.host, terms, random.uniform(begin, end)) for _ in range(random.choice([1, 1, 2]))
        ]
        yield _Sent(arrival(max(usage.end for usage in usages)), usage_record(profile.host, usages))


def _batch(random: Random, profile: HostProfile, start: float, length: float) -> Append:
    readings = [
        EnergyReading(
            device=device.id,
            start=start,
            end=start + length,
            energy_joules=random.choice([0.0, 300.0, 2_000.0, 1.0 / 3.0]),
            method=random.choice(["counter", "counter", "modelled", "recovered"]),
        )
        for device in profile.devices
    ]
    return readings_record(ReadingBatch(profile=profile, readings=tuple(readings)))


def _usage(random: Random, host: str, terms: Accounting, end: float) -> Usage:
    """A request; one in four takes an id out of three, which others use too, at about the same time or long after."""
    return Usage(
        host=host,
        namespace="",
        request_id=random.choice("rst") if random.random() < 0.25 else f"{random.getrandbits(40):x}",
        model=random.choice("mn"),
        team=random.choice(["blue", "red"]),
        devices=random.choice([None, ("g0",), ("g0",)]),
        weight=random.choice([1.0, 1.0, 0.5]),
        start=end - random.choice([0.0, 2.0, 8.0, 33.0, terms.horizon_seconds * 1.5]),
        end=end,
        input_tokens=random.choice([None, 100]),
        output_tokens=random.choice([None, 30]),
    )


def _again(random: Random, sent: list[_Sent], terms: Accounting) -> Iterator[_Sent]:
    """Some records a second time, soon or late; some cut short, so that a body says nothing."""
    for each in sent:
        chance = random.random()
        if chance < 0.08:
            yield _Sent(each.at + random.choice([0.0, 5.0, terms.horizon_seconds, 400.0]), each.record)
        elif chance < 0.10:
            yield _Sent(each.at, msgspec.structs.replace(each.record, body=each.record.body[:-3]))


def _contradiction(random: Random, terms: Accounting, begin: float, end: float) -> Iterator[_Sent]:
    """A request of long ago is heard of late; less than a horizon later, or just more, its id stands for a new one."""
    at = random.uniform(begin, end)
    old = _usage(random, "b", terms, at - random.choice([350.0, 450.0, 700.0]))
    again = at + terms.horizon_seconds * random.choice([0.1, 0.5, 0.9, 1.1])
    new = msgspec.structs.replace(_usage(random, "b", terms, again - 2.0), request_id=old.request_id)
    yield _Sent(at, usage_record("b", [old]))
    yield _Sent(again, usage_record("b", [new]))


def _orders(random: Random, begin: float, end: float) -> Iterator[_Sent]:
    for _ in range(random.choice([0, 0, 1, 2])):
        at = random.uniform(begin, end + 100.0)
        start = at - random.choice([30.0, 200.0, 500.0])
        order = Restate(host=random.choice("abc"), start=start, end=start + random.choice([10.0, 45.0]), reason="asked")
        yield _Sent(at, restate_record(order))


def _stamped(random: Random, sent: _Sent) -> Append:
    """Stamped as it arrives, by a clock that now and then steps back."""
    back = random.choice([5.0, 40.0, 150.0]) if random.random() < 0.1 else 0.0
    return msgspec.structs.replace(sent.record, stamp=sent.at - back)
