"""Usage by host, so that a record of the log holds many requests' parts. In: Usage. Out: records of one host each."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from collectors.units import UnixSeconds
from monitor.core.usage import Placed
from monitor.log.codec import batch_record, usage_record
from monitor.log.protocol import Append, LogWriter
from monitor.log.usage_wire import HostParts, UsageBatch

MOST_USAGES: Final = 500
"""In one record: about 100 kB."""
MOST_BYTES: Final = 512 * 2**10
"""Of one record, whatever its requests' labels: far below a broker's limit of 1 MB."""


def usage_batches(usages: Iterable[Placed], stamp: UnixSeconds | None = None) -> Iterator[Append]:
    """Records of at most 500 parts each, host by host, in the order in which they came."""
    return (record for record, _ in with_their_parts(usages, stamp))


def append_events(log: LogWriter, events: Sequence[Sequence[Placed]], now: UnixSeconds) -> Sequence[int]:
    """Appends the parts of each event; returns which events have a part that the log will never take, by index."""
    batches = list(with_their_parts(chain.from_iterable(events)))
    refused = log.append([record for record, _ in batches], now)
    lost = {id(part) for part in parts_of(refused, batches)}
    return [index for index, parts in enumerate(events) if lost and any(id(part) in lost for part in parts)]


def parts_of(records: Collection[Append], batches: Iterable[tuple[Append, Sequence[Placed]]]) -> list[Placed]:
    """What stands in these records; `batches` are all that were made."""
    return [part for record, parts in batches if records and record in records for part in parts]


def with_their_parts(
    usages: Iterable[Placed], stamp: UnixSeconds | None = None
) -> Iterator[tuple[Append, Sequence[Placed]]]:
    """The records of `usage_batches`, each with what stands in it."""
    by_host: dict[str, list[Placed]] = {}
    for usage in usages:
        host = usage.host or ""  # a placed event has one
        gathered = by_host.get(host)
        if gathered is None:
            by_host[host] = [usage]
        else:
            gathered.append(usage)
    for host, theirs in sorted(by_host.items()):
        for begin in range(0, len(theirs), MOST_USAGES):
            yield from _records(host, theirs[begin : begin + MOST_USAGES], stamp)


def _records(
    host: str, usages: Sequence[Placed], stamp: UnixSeconds | None
) -> Iterator[tuple[Append, Sequence[Placed]]]:
    record = usage_record(host, usages, stamp)
    if len(record.body) <= MOST_BYTES or len(usages) == 1:
        yield record, usages
        return
    half = len(usages) // 2
    yield from _records(host, usages[:half], stamp)
    yield from _records(host, usages[half:], stamp)


class Gathered:
    """Parts of requests by host, on their way into records, numbered from 0 in the order in which they come.

    What it is given need not be kept: see `HostParts`.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, tuple[HostParts, list[int]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, parts: Iterable[Placed]) -> None:
        """Takes these behind what it has."""
        for part in parts:
            host = part.host or ""  # a placed event has one
            known = self._hosts.get(host)
            if known is None:
                known = self._hosts[host] = HostParts(host), []
            known[0].add(part)
            known[1].append(self._count)
            self._count += 1

    def records(self, stamp: UnixSeconds | None = None) -> Iterator[tuple[Append, UsageBatch, Sequence[int]]]:
        """As `usage_batches` gives them, each with what stands in it, and the numbers of that."""
        for _, (parts, numbers) in sorted(self._hosts.items(), key=lambda each: each[0]):
            for begin in range(0, len(numbers), MOST_USAGES):
                yield from _some(parts, numbers, (begin, min(begin + MOST_USAGES, len(numbers))), stamp)


def _some(
    parts: HostParts, numbers: Sequence[int], span: tuple[int, int], stamp: UnixSeconds | None
) -> Iterator[tuple[Append, UsageBatch, Sequence[int]]]:
    begin, end = span
    batch = parts.batch(begin, end)
    record = batch_record(batch, stamp)
    if len(record.body) <= MOST_BYTES or end - begin == 1:
        yield record, batch, numbers[begin:end]
        return
    half = (begin + end) // 2
    yield from _some(parts, numbers, (begin, half), stamp)
    yield from _some(parts, numbers, (half, end), stamp)
