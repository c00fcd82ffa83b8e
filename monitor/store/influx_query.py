"""Rows out of InfluxDB by InfluxQL over /query, the one language that 1.x, 2.x and 3.x share. In: bounds. Out: rows.

Names come from points only; every value is a bind parameter.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast
from urllib.parse import urlencode

import msgspec
import urllib3

from monitor.core.points import Row
from monitor.store.influx_http import BAD_LINES, TOO_LARGE, Refused, Server
from monitor.store.influx_layout import Layout
from monitor.store.line_protocol import seconds, stored, unstored
from monitor.store.protocol import StoreUnavailable

QUERY_SECONDS: Final = 30.0
FIRST_NANOSECOND: Final = -9_223_372_036_854_775_806
LAST_NANOSECOND: Final = 9_223_372_036_854_775_806
_CHUNK_ROWS: Final = "10000"
_MOST_VALUES: Final = 100  # of a tag in one question: more of them are picked here, which is cheaper for both
_T = TypeVar("_T")
Where = Mapping[str, Collection[str]]


class Series(msgspec.Struct, Generic[_T], gc=False):
    """Points of one set of tags, or of all where a question does not group."""

    tags: dict[str, str] = {}
    values: list[_T] = []


class _Result(msgspec.Struct, Generic[_T]):
    series: list[Series[_T]] = []
    error: str | None = None
    partial: bool = False


class _Answer(msgspec.Struct, Generic[_T]):
    results: list[_Result[_T]] = []
    error: str | None = None


class Found(NamedTuple):
    """A point: its own nanosecond, its row, and its version where it has one."""

    nanosecond: int
    row: Row
    version: int | None


class Reader:
    """Any number of threads may use it. Raises StoreUnavailable."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def rows(
        self, place: Layout, bucket: str, bounds: tuple[int, int], where: Where, limit: int | None
    ) -> Iterator[Found]:
        """Points from the first of `bounds` up to the second, in the order of time; those with equal time in any."""
        columns = ", ".join(f'"{name}"' for name in place.columns)
        condition, parameters = _condition(bounds, where)
        text = f'SELECT {columns} FROM "{place.measurement.name}" WHERE {condition}'
        if limit is not None:
            text = f"{text} LIMIT {limit:d}"
        make = _maker(place)
        for series in self.ask(bucket, text, parameters, _point_type(place)):
            for values in series.values:
                yield make(values)

    def ask(self, bucket: str, text: str, parameters: Mapping[str, object], point: type[_T]) -> Iterator[Series[_T]]:
        """The series of an answer, as they come; `point` is what a point of theirs looks like."""
        where = f"bucket {bucket!r}"
        cannot = f"{self._server.url}: cannot read {where}"
        answer = self._server.attempt("read", where, lambda: self._open(bucket, text, parameters))
        decoder: msgspec.json.Decoder[_Answer[_T]] = _decoder(cast(Any, point))
        partial = False
        try:
            for line in answer:
                if line.strip():
                    [result] = self._results(decoder.decode(line), bucket)
                    partial = result.partial
                    yield from result.series
        except urllib3.exceptions.HTTPError as error:
            raise StoreUnavailable(f"{cannot}: the answer broke off: {error}") from error
        except msgspec.DecodeError as error:
            raise StoreUnavailable(f"{cannot}: not an answer of ours: {error}") from error
        finally:
            answer.drain_conn()
            answer.release_conn()
        if partial:
            raise StoreUnavailable(f"{cannot}: cut off by the server's row limit")

    def _open(self, bucket: str, text: str, parameters: Mapping[str, object]) -> urllib3.BaseHTTPResponse:
        form = {"db": bucket, "q": text, "epoch": "ns", "chunked": "true", "chunk_size": _CHUNK_ROWS}
        if parameters:
            form["params"] = msgspec.json.encode(parameters).decode()
        try:
            return self._server.request(
                "POST",
                "/query",
                timeout_seconds=QUERY_SECONDS,
                body=urlencode(form).encode(),
                content_type="application/x-www-form-urlencoded",
                stream=True,
            )
        except Refused as refused:
            if refused.status in (*BAD_LINES, TOO_LARGE):  # a question that it cannot take is not a fault of any line
                raise self._unreadable(bucket, refused.reason) from refused
            raise

    def _results(self, answer: _Answer[_T], bucket: str) -> list[_Result[_T]]:
        error = answer.error or next((result.error for result in answer.results if result.error), None)
        if error is not None:
            raise self._unreadable(bucket, error)
        return answer.results or [_Result()]

    def _unreadable(self, bucket: str, reason: str) -> StoreUnavailable:
        text = f"{self._server.url}: cannot read bucket {bucket!r}: {reason}"
        if "database not found" in reason:
            text += "; run `wattribute store setup`, or give the token in [influxdb] token_file the right to read it"
        return StoreUnavailable(text)


def picks(where: Where, *, all_of_them: bool) -> Callable[[Row, Sequence[str]], bool] | None:
    """What the server is not asked to pick, because there are too many values; None where it picks all."""
    here = {name: frozenset(values) for name, values in where.items() if all_of_them or len(values) > _MOST_VALUES}
    if not here:
        return None

    def picked(row: Row, names: Sequence[str]) -> bool:
        return all(row.tags[names.index(name)] in values for name, values in here.items())

    return picked


def _condition(bounds: tuple[int, int], where: Where) -> tuple[str, dict[str, object]]:
    parts, parameters = ["time >= $begin", "time < $end"], dict[str, object](begin=bounds[0], end=bounds[1])
    for name, values in where.items():
        if len(values) <= _MOST_VALUES:
            named = {f"{name}{number}": stored(value) for number, value in enumerate(sorted(values))}
            parts.append("(" + " OR ".join(f'"{name}" = ${key}' for key in named) + ")")
            parameters |= named
    return " AND ".join(parts), parameters


@lru_cache
def _point_type(place: Layout) -> Any:
    texts = [str | None] * (len(place.tags) + len(place.texts))
    fields = [kind | None for kind in place.measurement.types]
    extra = [int] if place.versioned else [float] if place.scattered else []
    return tuple.__class_getitem__((int, *texts, *fields, str | None, *(kind | None for kind in extra)))


@lru_cache
def _decoder(point: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_Answer[point])


def _maker(place: Layout) -> Callable[[tuple[Any, ...]], Found]:
    """Makes a point out of the values of its columns."""
    measurement, versioned, scattered = place.measurement, place.versioned, place.scattered
    told = (*place.tags, *place.texts)
    order = [told.index(name) for name in measurement.tags]
    first, end = 1 + len(told), 1 + len(told) + len(measurement.fields)
    texts = [at for at, kind in enumerate(measurement.types) if kind is str]
    places = {name: at for at, name in enumerate(measurement.fields)}
    tags_of: dict[tuple[str | None, ...], tuple[str, ...]] = {}  # of an answer: many points, few series

    def make(values: tuple[Any, ...]) -> Found:
        raw = values[1:first]
        if (tags := tags_of.get(raw)) is None:
            tags = tags_of[raw] = tuple(unstored(raw[at] or "") for at in order)
        fields = values[first:end]
        unknown = values[end]
        if unknown or any((text := fields[at]) is not None and "\\" in text for at in texts):
            fields = _believed(fields, texts, [places[name] for name in (unknown or "").split(",") if name in places])
        time = values[end + 1] if scattered else seconds(values[0])
        return Found(values[0], Row(measurement.name, time, tags, fields), values[end + 1] if versioned else None)

    return make


def _believed(fields: Sequence[Any], texts: Collection[int], unknown: Collection[int]) -> tuple[Any, ...]:
    """Texts as they were before they were stored, and None for what is unknown, whatever stands there of old."""
    return tuple(
        None if at in unknown else unstored(value) if value is not None and at in texts else value
        for at, value in enumerate(fields)
    )
