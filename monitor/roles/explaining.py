"""A request out of the books, computed again from the log, with how it came about.

store (its rows) -> windows, hosts, revisions -> log, read again -> accounts of these windows, watched -> Explained
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from collectors.units import UnixSeconds
from monitor.core.band import Band, Gains
from monitor.core.explain import Part, band_of, watching
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.core.nested import Nested
from monitor.core.points import REQUEST_ENERGY, Row
from monitor.core.window import window_at, window_start
from monitor.ledger.restating import Source, earliest, read_again
from monitor.log.codec import Decoder
from monitor.log.protocol import Log, PartitionLog
from monitor.roles.control import FactsReader, refuse_unknown_method
from monitor.store.protocol import Store

_FIELD = {name: place for place, name in enumerate(REQUEST_ENERGY.fields)}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request on one host, as the books or the log tell of it. `booked_joules` None: the books hold no row of it."""

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
    booked_joules: float | None


class Explained(Asked, frozen=True, kw_only=True):
    """One request on one host: what stands in the books of it, `parts` that are computed again, and the `band` in
    which its joules truly lie.

    Where the log no longer holds a window's records whole, its parts are missing and the sums differ. In a fleet
    `unbooked` are the windows of which the books have no rows (not final yet, or beyond their retention), and
    `differing` those of which they have others than those computed here.
    """

    method: str
    parts: tuple[Part, ...]
    band: Band
    unbooked: tuple[UnixSeconds, ...] = ()
    differing: tuple[UnixSeconds, ...] = ()


def explain(
    log: Log, store: Store, request_id: str, start: UnixSeconds, end: UnixSeconds, *, gains: Gains | None = None
) -> list[Explained]:
    """All requests of that id in the books of [start, end), one for each host, attempt and start, in their order.

    Raises LogUnavailable, StoreUnavailable, or TermsChanged for books of a method that this version does not know.
    """
    source = source_of(log, FactsReader(log)())
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in store.read(REQUEST_ENERGY, start, end, where={"request_id": {request_id}}):
        found.setdefault((row.tags, row.fields[_FIELD["start"]]), []).append(row)
    explained = []
    for _, rows in sorted(found.items(), key=str):
        length = source.terms.window_seconds
        windows = {window_at(row.time, length): int(row.fields[_FIELD["revision"]] or 0) for row in rows}
        parts, computed = computed_again(source, asked := asked_of(rows), windows)
        explained.append(explained_of(asked, source.terms, parts, computed, gains or Gains()))
    return explained


def source_of(log: PartitionLog, facts: Facts, *, host: str | None = None) -> Source:
    """What is read again; `host` alone counts where it is told. Raises TermsChanged, as `explain`."""
    terms = terms_of(facts)
    return Source(
        log=log,
        terms=terms,
        intensity_at=facts.intensity,
        scalars_at=facts.scalars,
        decoder=Decoder(),
        beginning=float("-inf"),
        requests="neither",
        stands_since=lambda window: earliest(terms, window) + terms.horizon_seconds,
        owns=lambda each: host in (None, each),
    )


def terms_of(facts: Facts) -> Accounting:
    """Those that the books are kept by. Raises TermsChanged for a method that this version does not know."""
    terms = facts.accounting() or Accounting()
    refuse_unknown_method(terms)
    return terms


def computed_again(
    source: Source, asked: Asked, windows: Mapping[int, int]
) -> tuple[tuple[Part, ...], dict[int, list[Row]]]:
    """The request's parts, and all rows of its host, in these windows of these revisions; one pass over the log."""
    terms, parts, rows = source.terms, list[Part](), dict[int, list[Row]]()
    lines = {each: float(revision) if revision else terms.final_line(each) for each, revision in windows.items()}
    book = read_again(source, max(lines.values(), default=0.0), windows.keys())
    identity = (asked.namespace, asked.request_id, asked.attempt, asked.start)
    for window, revision in sorted(windows.items()):
        watch = watching(identity, window_start(window, terms.window_seconds), terms.window_seconds, parts.append)
        account = book.account(asked.host, window, line=lines[window], revision=revision, watch=watch)
        rows[window] = account.rows
    return tuple(parts), rows


def explained_of(
    asked: Asked, terms: Accounting, parts: tuple[Part, ...], computed: Mapping[int, Sequence[Row]], gains: Gains
) -> Explained:
    """What was asked of, with its parts and the rows of their windows; `gains` are how far meters may be off."""
    nested = Nested()
    nested.add_rows(chain.from_iterable(computed.values()))
    band = band_of(parts, asked.host, gains, nested.told_by)
    return Explained(**msgspec.structs.asdict(asked), method=terms.method, parts=parts, band=band)


def asked_of(rows: Sequence[Row]) -> Asked:
    """The request whose rows these are, of one host: one for each window, or in a fleet one in all."""
    tags = dict(zip(REQUEST_ENERGY.tags, rows[0].tags, strict=True))
    fields = dict(zip(REQUEST_ENERGY.fields, rows[0].fields, strict=True))

    def tokens(name: str) -> float | None:
        value = fields[name]
        return None if value is None else float(value)

    return Asked(
        host=tags["host"],
        namespace=tags["namespace"],
        request_id=tags["request_id"],
        attempt=int(tags["attempt"]),
        model=tags["model"],
        team=tags["team"],
        start=float(fields["start"] or 0.0),
        end=float(fields["end"] or 0.0),
        input_tokens=tokens("input_tokens"),
        cached_input_tokens=tokens("cached_input_tokens"),
        output_tokens=tokens("output_tokens"),
        work_unit=None if fields["work_unit"] is None else str(fields["work_unit"]),
        work_amount=tokens("work_amount"),
        booked_joules=sum(float(row.fields[0] or 0.0) for row in rows),
    )
