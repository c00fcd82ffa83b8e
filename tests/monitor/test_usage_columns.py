"""Requests as columns say what they said as records, and come in one order whoever brings them."""

from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectors.requests.event import Work
from monitor.core.book import Book
from monitor.core.membership import Accounting
from monitor.core.usage import Usage
from monitor.core.usage_columns import NO_USAGES, UsageColumns, columns_of, joined
from monitor.core.usage_order import in_order
from monitor.core.usage_windows import final_lines, windows_of_each
from monitor.core.window import window_at

_names = st.sampled_from(["", "a", "b"])
_counts = st.none() | st.integers(0, 2**53)
_times = st.floats(-1e12, 1e12) | st.sampled_from([0.0, 10.0, 20.0])


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Of one host; whatever may be left out sometimes is."""
    start, end = sorted((draw(_times), draw(_times)))
    return Usage(
        host="h",
        request_id=draw(_names),
        namespace=draw(_names),
        model=draw(_names),
        team=draw(_names),
        deployment=draw(_names),
        devices=draw(st.none() | st.lists(_names, max_size=2).map(tuple)),
        attempt=draw(st.sampled_from([0, 1, 2**64 - 1])),
        start=start,
        scheduled=draw(st.none() | st.just(start)),
        first_token=draw(st.none() | st.just(end)),
        end=end,
        input_tokens=draw(_counts),
        cached_input_tokens=draw(_counts),
        output_tokens=draw(_counts),
        work=draw(st.none() | st.builds(Work, unit=_names, amount=st.floats(0, 1e9))),
        labels=draw(st.dictionaries(_names, _names, max_size=2)),
        status=draw(st.sampled_from(["ok", "error"])),
        weight=draw(st.sampled_from([1.0, 0.5])),
    )


@given(st.lists(usages(), max_size=6), st.data())
def test_columns_say_what_the_records_said(found: list[Usage], data: st.DataObject) -> None:
    """Also where some are taken, and where several are joined."""
    columns = columns_of(found, 7)
    assert list(columns.usages()) == found
    assert columns.number.tolist() == list(range(7, 7 + len(found)))
    assert [columns.identity(place) for place in range(len(found))] == [usage.identity for usage in found]
    chosen = data.draw(st.lists(st.sampled_from(range(len(found))), unique=True)) if found else []
    taken = columns.take(columns.number[chosen] - 7)
    assert list(taken.usages()) == [found[place] for place in chosen]
    assert list(joined([columns, taken, NO_USAGES]).usages()) == [*found, *taken.usages()]
    assert joined([columns, taken]).equals(columns_of([*found, *taken.usages()]))


@given(st.lists(usages(), max_size=6), st.data())
def test_the_order_is_that_of_the_content(found: list[Usage], data: st.DataObject) -> None:
    """Start, end, identity; what came twice stands there once, under the number that it got first."""
    ordered = in_order(columns_of(found))
    times = [(usage.start, usage.end) for usage in ordered.usages()]
    assert times == sorted(times)
    shuffled = data.draw(st.permutations([*found, *found[:2]]))
    assert in_order(columns_of(shuffled)).equals(ordered)
    for usage, number in zip(ordered.usages(), ordered.number.tolist(), strict=True):
        assert found.index(usage) == number


def test_labels_in_another_order_are_the_same_labels() -> None:
    """Two routes, one key."""
    found = [_usage(labels=dict(order)) for order in permutations([("x", "1"), ("y", "2")])]
    assert len(in_order(columns_of(found))) == 1
    assert {route.key[3] for route in columns_of(found).routes} == {'{"x":"1","y":"2"}'}


def test_two_say_the_same_only_if_they_do() -> None:
    """Not with other figures, another id, another route, or one more."""
    one = columns_of([_usage()])
    assert one.equals(columns_of([_usage()], 5))
    for other in (_usage(end=2.0), _usage(request_id="s"), _usage(team="u"), _usage(devices=None)):
        assert not one.equals(columns_of([other]))
    assert not one.equals(columns_of([_usage(), _usage()]))
    assert not one.equals(NO_USAGES)


@given(st.lists(usages(), max_size=4))
def test_windows_and_lines_are_those_of_one(found: list[Usage]) -> None:
    """A column of them gives what each gives alone; the window that a request ends in is its last."""
    terms = Accounting()
    first, last = windows_of_each(columns_of(found), terms.window_seconds)
    assert first.tolist() == [window_at(usage.start, 10.0) for usage in found]
    assert last.tolist() == [window_at(usage.end, 10.0) for usage in found]
    assert final_lines(terms, last).tolist() == [terms.final_line(window) for window in last.tolist()]


def test_a_time_that_nobody_believes_is_put_far_away() -> None:
    """No overflow: -1e300 s is in the furthest window there is."""
    first, last = windows_of_each(columns_of([_usage(start=-1e300, end=-1e300)]), 10.0)
    assert (first.tolist(), last.tolist()) == ([-(2**53)], [-(2**53)])


def _usage(
    *,
    request_id: str = "r",
    start: float = 0.0,
    end: float = 1.0,
    team: str = "t",
    devices: tuple[str, ...] | None = ("g0",),
    labels: dict[str, str] | None = None,
) -> Usage:
    return Usage(
        host="h",
        namespace="",
        request_id=request_id,
        model="m",
        team=team,
        devices=devices,
        start=start,
        end=end,
        labels=labels or {},
    )


def test_no_requests_are_columns_of_nothing() -> None:
    """Nothing to take, to order or to join."""
    assert len(columns_of([])) == len(joined([])) == len(in_order(NO_USAGES)) == 0
    assert isinstance(joined([]), UsageColumns)


def test_a_host_in_the_book_has_no_routes_of_others() -> None:
    """What an account costs must not depend on how many hosts shared its partition: 20 hosts, two routes for each."""
    book = Book(Accounting(), lambda _zone, _at: None)
    entered = columns_of(
        [
            Usage(
                host=f"h{number}",
                namespace="",
                request_id=f"{number}-{team}",
                model="m",
                team=team,
                start=20.0 + number,
                end=25.0 + number,
            )
            for number in range(20)
            for team in ("a", "b")
        ]
    )
    book.add_usages(entered)
    for number in range(20):
        held = book.usages(f"h{number}", window_at(25.0 + number, 10.0))
        assert [(route.host, route.team) for route in held.routes] == [(f"h{number}", "a"), (f"h{number}", "b")]
        assert [usage.request_id for usage in held.usages()] == [f"{number}-a", f"{number}-b"]


@given(st.lists(usages(), min_size=1, max_size=8), st.data())
def test_with_routes_of_their_own_they_say_the_same(found: list[Usage], data: st.DataObject) -> None:
    """Whichever are chosen: the same records, and no route that none of them has."""
    chosen = np.array(data.draw(st.lists(st.integers(0, len(found) - 1), unique=True).map(sorted)), dtype=np.intp)
    own = columns_of(found).of_their_own(chosen)
    assert own.equals(columns_of(found).take(chosen))
    assert set(own.route.tolist()) == set(range(len(own.routes)))
