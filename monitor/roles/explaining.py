"""A request out of the books, computed again from the log, with how it came about.

store (its rows) -> windows, hosts, revisions -> log, read again -> accounts of these windows, watched -> Explained
"""

import msgspec

from collectors.units import UnixSeconds
from monitor.core.explain import Part, watching
from monitor.core.membership import Accounting
from monitor.core.points import REQUEST_ENERGY, Row
from monitor.core.window import window_at
from monitor.ledger.restating import Source, earliest, read_again
from monitor.log.codec import Decoder
from monitor.log.protocol import Log
from monitor.roles.control import FactsReader, refuse_unknown_method
from monitor.store.protocol import Store

_FIELD = {name: place for place, name in enumerate(REQUEST_ENERGY.fields)}


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One request on one host. `booked_joules` is what stands in the books of it, `parts` are computed again.

    Where the log no longer holds a window's records whole, its parts are missing and the sums differ.
    """

    host: str
    namespace: str
    request_id: str
    attempt: int
    model: str
    team: str
    start: UnixSeconds
    end: UnixSeconds
    input_tokens: float | None
    cached_input_tokens: float | None
    output_tokens: float | None
    work_unit: str | None
    work_amount: float | None
    booked_joules: float
    method: str
    parts: tuple[Part, ...]


def explain(log: Log, store: Store, request_id: str, start: UnixSeconds, end: UnixSeconds) -> list[Explained]:
    """All requests of that id in the books of [start, end), one for each host, attempt and start, in their order.

    Raises LogUnavailable, StoreUnavailable, or TermsChanged for books of a method that this version does not know.
    """
    facts = FactsReader(log)()
    terms = facts.accounting() or Accounting()
    refuse_unknown_method(terms)
    source = Source(
        log=log,
        terms=terms,
        intensity_at=facts.intensity,
        scalars_at=facts.scalars,
        decoder=Decoder(),
        beginning=float("-inf"),
        requests="neither",
        stands_since=lambda window: earliest(terms, window) + terms.horizon_seconds,
    )
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in store.read(REQUEST_ENERGY, start, end, where={"request_id": {request_id}}):
        found.setdefault((row.tags, row.fields[_FIELD["start"]]), []).append(row)
    return [_explained(source, sorted(rows, key=lambda row: row.time)) for _, rows in sorted(found.items(), key=str)]


def _explained(source: Source, rows: list[Row]) -> Explained:
    tags = dict(zip(REQUEST_ENERGY.tags, rows[0].tags, strict=True))
    fields = dict(zip(REQUEST_ENERGY.fields, rows[0].fields, strict=True))
    start, attempt = float(fields["start"] or 0.0), int(tags["attempt"])
    parts: list[Part] = []
    length = source.terms.window_seconds
    for row in rows:
        window, revision = window_at(row.time, length), int(row.fields[_FIELD["revision"]] or 0)
        line = float(revision) if revision else source.terms.final_line(window)
        book = read_again(source, line, {window})
        watch = watching((tags["namespace"], tags["request_id"], attempt, start), row.time, length, parts.append)
        book.account(tags["host"], window, line=line, revision=revision, watch=watch)

    def tokens(name: str) -> float | None:
        value = fields[name]
        return None if value is None else float(value)

    return Explained(
        host=tags["host"],
        namespace=tags["namespace"],
        request_id=tags["request_id"],
        attempt=attempt,
        model=tags["model"],
        team=tags["team"],
        start=start,
        end=float(fields["end"] or 0.0),
        input_tokens=tokens("input_tokens"),
        cached_input_tokens=tokens("cached_input_tokens"),
        output_tokens=tokens("output_tokens"),
        work_unit=None if fields["work_unit"] is None else str(fields["work_unit"]),
        work_amount=tokens("work_amount"),
        booked_joules=sum(float(row.fields[0] or 0.0) for row in rows),
        method=source.terms.method,
        parts=tuple(parts),
    )
