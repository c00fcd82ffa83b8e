"""Usage by host, so that a record of the log holds many requests' parts. In: Usage. Out: records of one host each."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from collectors.units import UnixSeconds
from monitor.core.usage import Usage
from monitor.log.codec import usage_record
from monitor.log.protocol import Append

MOST_USAGES: Final = 500
"""In one record: about 100 kB."""
MOST_BYTES: Final = 512 * 2**10
"""Of one record, whatever its requests' labels: far below a broker's limit of 1 MB."""


def usage_batches(usages: Iterable[Usage], stamp: UnixSeconds | None = None) -> Iterator[Append]:
    """Records of at most 500 parts each, host by host, in the order in which they came."""
    by_host: dict[str, list[Usage]] = {}
    for usage in usages:
        gathered = by_host.get(usage.host)
        if gathered is None:
            by_host[usage.host] = [usage]
        else:
            gathered.append(usage)
    for host, theirs in sorted(by_host.items()):
        for begin in range(0, len(theirs), MOST_USAGES):
            yield from _records(host, theirs[begin : begin + MOST_USAGES], stamp)


def _records(host: str, usages: Sequence[Usage], stamp: UnixSeconds | None) -> Iterator[Append]:
    record = usage_record(host, usages, stamp)
    if len(record.body) <= MOST_BYTES or len(usages) == 1:
        yield record
        return
    half = len(usages) // 2
    yield from _records(host, usages[:half], stamp)
    yield from _records(host, usages[half:], stamp)
