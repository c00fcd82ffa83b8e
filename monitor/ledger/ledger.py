"""The reader of one partition: from records in the log to rows in the store, and a commit that claims these alone.

    log.read -> log time moves on: windows become final, marks are carried out -> enter into the book -> store -> commit

It has no state of its own that a crash could lose: killed anywhere and started again, it writes the same rows.
"""

from collections.abc import Callable, Sequence
from math import nextafter

import msgspec
import structlog

from collectors.units import SECONDS_PER_DAY, SECONDS_PER_HOUR, UnixSeconds
from monitor.core.account import RequestsAs
from monitor.core.allocation import window_sums
from monitor.core.attribution.priors import Scalars
from monitor.core.book import Book, provisional_rows
from monitor.core.emissions.factors import Intensity
from monitor.core.facts import Facts
from monitor.core.lessons import Learning, Lesson, UnitLesson
from monitor.core.membership import Accounting
from monitor.core.points import ENERGY, HOLE, METER, RESTATEMENT, Row
from monitor.core.readings import PARENT_REACH_SECONDS, Told
from monitor.core.request_energy import Entries, RequestEnergy
from monitor.core.window import grid_starts, window_at, window_start
from monitor.ledger.entering import Entering, RequestsTouch, Touch
from monitor.ledger.finishing import Finishing
from monitor.ledger.late import Late
from monitor.ledger.mending import Restatements
from monitor.ledger.restating import STREAMS, Source, earliest, restate, restated_anew
from monitor.log.codec import Decoder
from monitor.log.protocol import Commit, DeadLetter, Hole, LogRecord, PartitionLog
from monitor.store.protocol import Store
from monitor.store.rollup import write_rollups

ROWS_AT_ONCE = 20_000
PROVISIONAL_ROWS_AT_ONCE = 4_000  # they are wanted soon: a request of a store's usual size, and on with the next


class Progress(msgspec.Struct):
    """What the reader has done since it started. `reread_seconds` is the log time it may read a second time."""

    records: int = 0
    finals: int = 0
    restated: int = 0
    reread_records: int = 0
    reread_seconds: float = 0.0
    holes: int = 0
    mended: int = 0
    worst_imbalance_ratio: float | None = None


class Ledger:
    """Keeps the books of one partition. One thread owns it."""

    _torn: bool
    _mark: UnixSeconds
    _final_end: UnixSeconds

    def __init__(
        self,
        log: PartitionLog,
        store: Store,
        terms: Accounting,
        facts: Callable[[], Facts],
        *,
        show_provisional: bool = True,
        owns: Callable[[str], bool] = lambda _host: True,
        request_rows: bool = True,
        finished: Callable[[Sequence[RequestEnergy]], None] | None = None,
        teach: Callable[[Sequence[Lesson | UnitLesson], UnixSeconds], None] = lambda _lessons, _log_time: None,
    ) -> None:
        """`owns` tells which hosts of the store are this partition's: it rolls up theirs alone.

        Of each request's energy the store gets a row for each window with `request_rows`; with `finished` that gets one
        entry for the whole request instead, at least once, before the commit that claims its last window. `teach` takes
        what a period's windows taught (`partition` is for it to fill in) once the last of them is final, at least once,
        and has put it among the facts when it returns.
        """
        self._log, self._store, self._terms, self._read_facts = log, store, terms, facts
        self._show_provisional, self._owns = show_provisional, owns
        self._finished, self._teach = finished, teach
        self._requests: RequestsAs = "shares" if finished else "rows" if request_rows else "neither"
        self._facts = facts()
        self._decoder = Decoder()
        self.progress = Progress()
        self._resume()

    @property
    def watermark(self) -> UnixSeconds:
        """Everything before it is final; -infinity where nothing is yet."""
        return self._final_end

    def step(self, limit: int = 2_000) -> int:
        """Takes the next records (returns how many), stores what became final, and commits.

        After an error the next step begins again at the last commit: what the error cut off halfway is done anew.
        """
        if self._torn:
            self._resume()
        self._torn = True
        self._facts = self._read_facts()
        records = self._log.read(self._positions, limit)
        before = (self._final_end, self._mark)
        for record in records:
            self._take(record)
        self._enter_requests()
        self._flush()
        if before != (self._final_end, self._mark):
            self._commit()
        if self._show_provisional and self._log.caught_up():
            self._write_provisional()
        self._torn = False
        return len(records)

    def _resume(self) -> None:
        self._torn = False
        self._book = Book(self._terms, self._intensity_at, scalars_at=self._scalars_at, requests=self._requests)
        self._rows: list[Row] = []
        self._entries = Entries()
        self._letters: list[DeadLetter] = []
        self._dirty: set[tuple[int, str]] = set()
        self._shown: set[tuple[int, str]] = set()
        self._gone: list[tuple[int, str]] = []
        self._log_time = float("-inf")
        commit, log_end = self._log.committed(), self._log.log_time()
        # The horizon before what is needed tells conflicts from new requests. It was judged by a reader who knew what
        # stands before it; here it is not entered, or a conflict there, long known as one, would count.
        since = nextafter(commit.log_time + self._terms.horizon_seconds, float("-inf")) if commit else float("-inf")
        self._entering = Entering(
            self._terms, self._book, reject=self._reject, decoder=self._decoder, since=since, owns=self._owns
        )
        self._moved = commit.moved if commit else None
        self._brought = False
        self._first_whole = float("-inf")
        if self._moved is not None:
            self._first_whole = window_at(self._moved.whole_from, self._terms.window_seconds)
        beginning = self._log.start()
        self._positions: dict[str, int] = dict(commit.positions) if commit else dict.fromkeys(STREAMS, 0)
        self._mark = commit.mark if commit else float("-inf")
        self._final_end = commit.watermark if commit else float("-inf")
        self._learning = Learning(
            self._final_end, commit.lessons if commit else {}, commit.unit_lessons if commit else ()
        )
        self._beginning = commit.beginning if commit else float("-inf")
        if commit is None and beginning is not None and beginning[1]:
            # Cut off at its start: what ended before may have lost records, so it is not final here.
            self._final_end = self._grid_after(beginning[0])
        hole = self._hole_before(beginning) if commit is None else self._log.hole()
        if hole is not None:
            self._name_hole(hole, commit.watermark if commit else hole.start)
        self._late = Late(self._terms, self._mark)
        self._restatements = Restatements(self._store, self._terms, request_rows=self._requests == "rows")
        cut = self._beginning > float("-inf")
        first = (
            window_at(self._beginning, self._terms.window_seconds) + 1 if cut else 0 if commit else self._next_window()
        )
        first = int(max(first, self._first_whole))
        # A commit names a place before all records of windows that are open there; of older ones nothing is known.
        self._whole_since = self._next_window() if commit else 0
        self._finishing = Finishing(self._terms, self._book, first) if self._finished else None
        if commit is not None:
            self._restatements.recall(commit.mark, self._owns)
        self._open_hours: set[UnixSeconds] = set()
        self._open_days: set[UnixSeconds] = set()
        if self._final_end > float("-inf"):
            self._open(window_at(self._final_end, self._terms.window_seconds))
        self._reread_until = log_end if commit and log_end is not None else float("-inf")
        # As far as the reader before this one can have shown windows that are not final: it had committed just before.
        self._shown_until = self._final_end + self._terms.horizon_seconds if commit else float("-inf")
        if commit and log_end is not None:
            # The reader before this one had come a horizon behind its watermark, and perhaps a window further.
            reached = min(log_end, self._shown_until + self._terms.window_seconds)
            self.progress.reread_seconds = max(0.0, reached - commit.log_time)
            structlog.get_logger().info(
                "ledger resumes",
                watermark=self._final_end,
                mark=self._mark,
                reread_seconds=self.progress.reread_seconds,
            )

    def _hole_before(self, beginning: tuple[UnixSeconds, bool] | None) -> Hole | None:
        """Nobody has committed, but the store holds books that were final before this log begins: it was made anew.

        Not so where a reader of this log stored its first final or restated windows and died before its first commit.
        """
        ends, marks = (
            [at for host, at in self._store.last_times(each, "host").items() if self._owns(host)]
            for each in (METER, RESTATEMENT)
        )
        if beginning is None or not ends:
            return None
        start = max(ends) + self._terms.window_seconds
        why = "the log begins anew behind the end of the books, with no committed position"
        made_before = max([start + self._terms.horizon_seconds, *marks]) <= beginning[0]
        return Hole(start=start, end=beginning[0], why=why) if made_before else None

    def _name_hole(self, hole: Hole, watermark: UnixSeconds) -> None:
        """What the log lost is missing: its windows are not made of what is left of them, and the books say so."""
        first = watermark if watermark > float("-inf") else self._grid_after(hole.start)
        self._final_end = max(self._final_end, self._grid_after(hole.end))
        self._beginning = max(self._beginning, hole.end)
        last = self._final_end - self._terms.window_seconds
        seconds = self._final_end - first
        hosts = [host for host in sorted(self._store.last_times(METER, "host")) if self._owns(host)]
        structlog.get_logger().error(
            "the log lost records before they were accounted; the windows in between are missing",
            why=hole.why,
            first_window=first,
            last_window=last,
            hosts=hosts,
        )
        self._store.write([Row(HOLE.name, first, (host,), (seconds, hole.why, first, last, 0)) for host in hosts])
        self.progress.holes += 1

    def _grid_after(self, moment: UnixSeconds) -> UnixSeconds:
        return self._starts(window_at(moment, self._terms.window_seconds) + 1)

    def _stands_since(self, window: int) -> UnixSeconds:
        """A log time before which no record of the window stands: what is behind it is read again for a restating."""
        if self._moved is None and window >= self._whole_since:
            return self._book.stands_since(window)
        return earliest(self._terms, window) + self._terms.horizon_seconds

    def _starts(self, window: int) -> UnixSeconds:
        return window_start(window, self._terms.window_seconds)

    def _take(self, record: LogRecord) -> None:
        if record.stamp > self._log_time:
            if self._makes_final(record.stamp):
                self._enter_requests()
            self._advance(record.stamp)
        brought = self._moved is not None and record.offset < self._moved.ends.get(record.stream, 0)
        if brought != self._brought:
            self._enter_requests()
            self._brought = brought
        for touch in self._entering.enter(record):
            self._note(touch)
        self._positions[record.stream] = record.offset + 1
        self.progress.records += 1
        self.progress.reread_records += record.stamp <= self._reread_until

    def _makes_final(self, log_time: UnixSeconds) -> bool:
        """Whether windows become final at this log time, or a mark is carried out."""
        return self._terms.last_final(log_time) >= self._next_window() or self._terms.mark_before(log_time) > self._mark

    def _enter_requests(self) -> None:
        """Those of the records that were taken since the last time."""
        for touch in self._entering.requests():
            self._note(touch)

    def _note(self, touch: Touch | RequestsTouch) -> None:
        # A record that was only brought here with its host says nothing new of windows before the first whole one.
        news = touch.since(self._first_whole) if self._brought else touch
        if news is None:
            return
        if self._show_provisional:
            self._dirty.update((window, news.host) for window in news.touched())
        self._note_late(news)

    def _note_late(self, news: Touch | RequestsTouch) -> None:
        if isinstance(news, RequestsTouch):
            for windows, log_time in news.late(self._terms):
                if late := self._late.touched(news.host, windows, log_time):
                    late.requests += 1
                if self._finishing:
                    self._late.finishes(news.host, windows, log_time)
        elif news.windows.start <= self._terms.last_final(news.log_time) and (
            late := self._late.touched(news.host, news.windows, news.log_time)
        ):
            late.note(news.entered)

    def _advance(self, log_time: UnixSeconds) -> None:
        """Log time moves on: windows behind the horizon become final, marks that lie behind are carried out."""
        self._log_time = log_time
        last = self._terms.last_final(log_time)
        for window, host in list(self._book.pages(self._next_window(), last)):
            line = self._terms.final_line(window)
            self._carry_out_marks(line)
            self._settle(self._starts(window))
            account = self._book.account(host, window, line=line, teach=True)
            if self._show_provisional:  # live, where a window costs nothing; a replay's statement checks them all
                self._check(account.rows)
            self._rows += account.rows
            self._letters += map(_overlap, account.overlaps)
            self._learning.add(self._starts(window), account.lessons, account.unit_lessons)
            if self._finishing:
                self._entries.add(self._finishing.final(host, window, account))
            self.progress.finals += 1
            self._open(window)
            if (window, host) in self._shown or (self._show_provisional and self._starts(window) <= self._shown_until):
                self._shown.discard((window, host))
                self._gone.append((window, host))
            if len(self._rows) + len(self._entries) >= ROWS_AT_ONCE:
                self._flush()
        self._carry_out_marks(log_time)
        self._settle(self._starts(last + 1))

    def _check(self, rows: list[Row]) -> None:
        """Keeps the worst of |measured - attributed - idle - unattributed| / measured."""
        books = [row for row in rows if row.measurement in (ENERGY.name, METER.name)]
        measured, _, _, _, imbalance = window_sums(books)
        if measured:
            worst = self.progress.worst_imbalance_ratio or 0.0
            self.progress.worst_imbalance_ratio = max(worst, abs(imbalance) / measured)

    def _next_window(self) -> int:
        """The oldest window that is not final. A fresh reader has none, and nothing in its book either."""
        return 0 if self._final_end == float("-inf") else round(self._final_end / self._terms.window_seconds)

    def _settle(self, end: UnixSeconds) -> None:
        """Everything before `end` is final: hours and days that are over are rolled up."""
        self._final_end = max(self._final_end, end)
        if lessons := self._learning.over(self._final_end, self._log_time):
            self._teach(lessons, self._log_time)
            self._facts = self._read_facts()
        self._roll_up()

    def _open(self, *windows: int) -> None:
        """The hours and days of these windows are to be rolled up once they are over."""
        self._open_hours |= grid_starts(windows, self._terms.window_seconds, SECONDS_PER_HOUR)
        self._open_days |= grid_starts(windows, self._terms.window_seconds, SECONDS_PER_DAY)

    def _roll_up(self) -> None:
        hours = {hour for hour in self._open_hours if hour + SECONDS_PER_HOUR <= self._final_end}
        days = {day for day in self._open_days if day + SECONDS_PER_DAY <= self._final_end}
        if hours or days:
            self._flush()
            write_rollups(self._store, hours, days, owns=self._owns)
            self._open_hours -= hours
            self._open_days -= days

    def _carry_out_marks(self, log_time: UnixSeconds) -> None:
        if (newest := self._terms.mark_before(log_time)) <= self._mark:
            return
        source = Source(
            self._log,
            self._terms,
            self._intensity_at,
            self._scalars_at,
            self._decoder,
            self._beginning,
            self._requests,
            self._stands_since,
            self._first_whole,
            self._owns,
        )
        self._mend(source, newest)
        for mark, late in self._late.due(log_time):
            restated = restate(source, mark, late)
            self._rows += restated.rows
            self._letters += map(_overlap, restated.overlaps)
            self._entries.add(restated.entries)
            self.progress.restated += len(restated.pages)
            self._restatements.noted(mark, restated.pages)
            self._open(*{window for window, _ in restated.pages})
            self._roll_up()
        self._mark = newest

    def _mend(self, source: Source, newest: UnixSeconds) -> None:
        """What marks of the last day restated and the store holds no longer is written again as it was, to the byte."""
        if not self._restatements.any_within_day(newest):
            return
        self._flush()  # what is still on its way is not stale
        stale = self._restatements.look_back()
        for mark, stored in sorted(stale.windows.items()):
            self._rows += restated_anew(source, mark, stored)
            self.progress.mended += len(stored)
            self._open(*{window for _, window in stored})
        self._open(*(window_at(start, self._terms.window_seconds) for start in stale.rolled))
        self._roll_up()

    def _flush(self) -> None:
        if self._rows:
            self._store.write(self._rows)
            self._rows = []
        if self._entries and self._finished:
            self._finished(self._entries)
        self._entries = Entries()
        if self._letters:
            self._log.reject(self._letters)
            self._letters = []
        if self._gone:  # behind the final rows: at no moment is neither there
            self._store.replace_provisional_pages({(host, self._starts(window)): () for window, host in self._gone})
        self._gone = []

    def _commit(self) -> None:
        """Claims what is stored, and names where a new reader has to begin: one horizon before what it needs first."""
        reach = PARENT_REACH_SECONDS if self._book.has_families else 0.0
        open_since = round(self._final_end / self._terms.window_seconds)
        if self._finishing:  # the windows of a request that goes on are summed when its last one is final
            open_since = self._book.in_flight_since(open_since)
        first = open_since - int(reach // self._terms.window_seconds) - 1
        self._book.forget_before(first)
        if self._finishing:
            self._finishing.forget_before(first)
        self._dirty = {page for page in self._dirty if page[0] > first}
        needed = min(self._book.needed_since(first), self._late.finishing_since(), self._log_time, self._mark)
        since = needed - self._terms.horizon_seconds
        self._log.commit(
            Commit(
                positions={stream: self._log.position_at(stream, since) for stream in STREAMS},
                watermark=self._final_end,
                mark=self._mark,
                log_time=since,
                beginning=self._beginning,
                moved=self._moved,
                lessons=self._learning.open,
                unit_lessons=self._learning.open_units,
            )
        )

    def _write_provisional(self) -> None:
        """Shows windows that are over but not final yet. Only a reader that has caught up comes here."""
        length = self._terms.window_seconds
        first = self._next_window()
        over = window_at(self._log_time, length) if self._log_time > float("-inf") else first
        due = {page for page in self._dirty if first <= page[0] < over}
        self._dirty = {page for page in self._dirty if page[0] >= over}
        pages: dict[tuple[str, UnixSeconds], list[Row]] = {}
        for window, host in sorted(due):
            rows = self._book.account(host, window, line=float("inf")).rows
            pages[host, self._starts(window)] = provisional_rows(rows)
            if sum(map(len, pages.values())) >= PROVISIONAL_ROWS_AT_ONCE:
                self._store.replace_provisional_pages(pages)
                pages = {}
        if pages:
            self._store.replace_provisional_pages(pages)
        self._shown |= due

    def _intensity_at(self, zone: str, at: UnixSeconds) -> Intensity | None:
        return self._facts.intensity(zone, at)

    def _scalars_at(self, gpu: str, at: UnixSeconds) -> Scalars:
        return self._facts.scalars(gpu, at)

    def _reject(self, letter: DeadLetter) -> None:
        self._letters.append(letter)


def _overlap(told: Told) -> DeadLetter:
    reading = told.reading
    return DeadLetter(
        source=f"readings/{told.profile.host}",
        position=f"{reading.device}@{reading.start!r}",
        reason="overlap",
        detail=f"the reading of {reading.device} from {reading.start!r} to {reading.end!r} overlaps an earlier one",
        sha256="",
        at=reading.start,
    )
