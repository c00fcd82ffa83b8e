"""Which record belongs to which account, and which contradicts another."""

from hypothesis import given
from hypothesis import strategies as st

from monitor.core.membership import Accounting, Identities

TERMS = Accounting(window_seconds=10.0, horizon_seconds=900.0, mark_seconds=900.0)


def test_a_window_closes_one_horizon_after_its_end() -> None:
    """Window 9 ends at 100 s: final at 1 000 s, not a moment before."""
    assert TERMS.final_line(9) == 1_000.0
    assert TERMS.is_final(9, 1_000.0)
    assert not TERMS.is_final(9, 999.999)
    assert TERMS.last_final(1_000.0) == 9
    assert TERMS.last_final(1_009.9) == 9
    assert TERMS.last_final(999.999) == 8


def test_marks() -> None:
    """At 1 000 s the newest mark is 900 s; what stands at 900 s is in the account of 1 800 s, not of 900 s."""
    assert TERMS.mark_before(1_000.0) == TERMS.mark_before(900.0) == 900.0
    assert TERMS.mark_before(899.0) == 0.0
    assert TERMS.mark_after(899.0) == 900.0
    assert TERMS.mark_after(900.0) == 1_800.0


def test_the_account_that_a_mark_replaces() -> None:
    """Window 9 is final at 1 000 s: the mark at 1 800 s replaces that account, the one at 2 700 s that of 1 800 s."""
    assert TERMS.line_before(9, 1_800.0) == 1_000.0
    assert TERMS.line_before(9, 2_700.0) == 1_800.0


@given(
    st.one_of(st.floats(1e9, 4e9), st.integers(100_000_000, 400_000_000).map(lambda n: n * 10.0)),
    st.sampled_from([1.0, 7.0, 10.0, 15.0, 60.0]),
    st.sampled_from([0.0, 30.0, 900.0]),
)
def test_the_newest_final_window_is_final_and_the_next_is_not(
    log_time: float, window_seconds: float, horizon: float
) -> None:
    """On any grid, also a float away from an edge."""
    terms = Accounting(window_seconds=window_seconds, horizon_seconds=horizon)
    newest = terms.last_final(log_time)
    assert terms.is_final(newest, log_time)
    assert not terms.is_final(newest + 1, log_time)


def test_other_content_within_a_horizon_is_a_conflict() -> None:
    """Equal content never is; exactly one horizon later other content still is, after that the id was reused."""
    identities = Identities(900.0)
    assert not identities.is_conflict("a", b"1", 0.0)
    assert not identities.is_conflict("a", b"1", 10.0)
    assert not identities.is_conflict("b", b"2", 10.0)
    assert identities.is_conflict("a", b"2", 910.0)
    assert not identities.is_conflict("b", b"3", 910.001)


def test_a_repetition_counts_from_where_it_stands() -> None:
    """Content 1 at 0 s and again at 800 s: content 2 at 1 000 s contradicts the repetition."""
    identities = Identities(900.0)
    identities.is_conflict("a", b"1", 0.0)
    identities.is_conflict("a", b"1", 800.0)
    assert identities.is_conflict("a", b"2", 1_000.0)


LOGS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 1.0, 3.0, 10.0, 25.0]), st.sampled_from("ab"), st.sampled_from([b"1", b"2"])),
    max_size=40,
)


@given(LOGS, st.integers(0, 40))
def test_a_reader_that_starts_one_horizon_earlier_judges_the_same(
    steps: list[tuple[float, str, bytes]], start: int
) -> None:
    """Verdicts from a place in the log on do not depend on what stands more than a horizon of 10 s before it."""
    log, log_time = [], 0.0
    for step, identity, digest in steps:
        log_time += step
        log.append((identity, digest, log_time))
    start = min(start, len(log))
    begins = log[start][2] - 10.0 if start < len(log) else log_time
    early = next((place for place, record in enumerate(log) if record[2] >= begins), start)
    whole, late = Identities(10.0), Identities(10.0)
    verdicts = [whole.is_conflict(*record) for record in log]
    assert [late.is_conflict(*record) for record in log[early:]][start - early :] == verdicts[start:]


@given(LOGS)
def test_verdicts_as_by_looking_at_the_whole_log(steps: list[tuple[float, str, bytes]]) -> None:
    """A conflict has other content under its identity among the records of the 10 s before it, and only then."""
    identities, log, log_time = Identities(10.0), [], 0.0
    for step, identity, digest in steps:
        log_time += step
        expected = any(other == identity and content != digest and at >= log_time - 10.0 for other, content, at in log)
        assert identities.is_conflict(identity, digest, log_time) == expected
        log.append((identity, digest, log_time))
