"""A record's requests are judged at once as they would be one by one, and as `Identities` judges readings."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from monitor.core.membership import Identities
from monitor.core.request_identities import RequestIdentities
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

HORIZON = 10.0
ALWAYS = float("-inf")
_requests = st.builds(
    lambda who, team, attempt, namespace: Usage(
        host="h", namespace=namespace, request_id=who, attempt=attempt, model="m", team=team, start=0.0, end=1.0
    ),
    st.sampled_from("abc"),
    st.sampled_from("xy"),
    st.sampled_from([0, 0, 1]),
    st.sampled_from(["", "n"]),
)
_records = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 4.0, 10.0, 11.0]), st.lists(_requests, max_size=5)), max_size=8
)


def _two(told: object) -> int:
    return hash(told) & 1


def _one(_told: object) -> int:
    return 7


@given(_records, st.sampled_from([hash, _two, _one]))
def test_conflicts_are_those_of_one_by_one(
    records: list[tuple[float, list[Usage]]], digest: Callable[[object], int]
) -> None:
    """The same rule, asked of whole records; what repeats something is in the book already, what is new is not.

    Whatever digests say, also where all have the same.
    """
    judge, plain, at, number = RequestIdentities(HORIZON, ALWAYS, digest), Identities(HORIZON), 0.0, 1
    book: list[Usage] = []
    for pause, usages in records:
        at += pause
        judged = judge.judge(columns_of(usages, number, [at] * len(usages)))
        number += len(usages)
        for usage, conflict, repeated in zip(usages, judged.conflict.tolist(), judged.repeated.tolist(), strict=True):
            assert conflict == plain.is_conflict(usage.identity, repr(usage).encode(), at)
            assert not repeated or usage in book
            if not conflict:
                book.append(usage)


def test_each_of_many_is_found_again() -> None:
    """300 records of 7 ids each, then the first, one from the middle and the last once more, with another content."""
    judge = RequestIdentities(HORIZON, ALWAYS)
    for record in range(300):
        ids = [f"{record}-{place}" for place in range(7)]
        judged = judge.judge(columns_of([_usage("x", each) for each in ids], 1 + 7 * record))
        assert not judged.conflict.any()
        assert not judged.repeated.any()
    again = [_usage("x", "0-0"), _usage("y", "150-3"), _usage("x", "299-6"), _usage("x", "300-0")]
    judged = judge.judge(columns_of(again, 2_101))
    assert judged.conflict.tolist() == [False, True, False, False]
    assert judged.repeated.tolist() == [True, False, True, False]


def test_another_content_under_an_identity_is_a_conflict_for_a_horizon() -> None:
    """At 10 s it still is one, at 10.1 s the id is used again; the same once more is none at any time."""
    first, other = _usage("x"), _usage("y")
    for at, conflicts in ((10.0, True), (10.1, False)):
        judge = RequestIdentities(HORIZON, ALWAYS)
        judge.judge(columns_of([first], 1))
        assert judge.judge(columns_of([other], 2, [at])).conflict.tolist() == [conflicts]
    judge = RequestIdentities(HORIZON, ALWAYS)
    judge.judge(columns_of([first], 1))
    again = judge.judge(columns_of([first, _usage("x", "other id")], 2, [5.0] * 2))
    assert (again.conflict.tolist(), again.repeated.tolist()) == ([False, False], [True, False])


def test_what_came_before_the_book_began_is_no_repetition() -> None:
    """A reader that began at 5 s knows of what stood at 4 s, but has it in no window."""
    judge = RequestIdentities(HORIZON, since=5.0)
    for number, (at, repeated) in enumerate(((4.0, False), (6.0, False), (7.0, True)), 1):
        assert judge.judge(columns_of([_usage("x")], number, [at])).repeated.tolist() == [repeated]


def test_a_record_may_contradict_itself() -> None:
    """Two contents under one id in one record: the second is the conflict."""
    judge = RequestIdentities(HORIZON, ALWAYS)
    judged = judge.judge(columns_of([_usage("x"), _usage("y"), _usage("x", "b")], 1))
    assert judged.conflict.tolist() == [False, True, False]


def _usage(team: str, request_id: str = "a") -> Usage:
    return Usage(host="h", namespace="", request_id=request_id, model="m", team=team, start=0.0, end=1.0)
