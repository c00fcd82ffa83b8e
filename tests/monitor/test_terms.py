"""The terms that books are kept under, against a log in a file."""

from pathlib import Path

import msgspec
import pytest

from monitor.config.sections import Config
from monitor.core.membership import Accounting
from monitor.log.codec import accounting_record
from monitor.log.sqlite import SqliteLog
from monitor.roles.control import FactsReader, TermsChanged, agree_on_terms
from monitor.roles.embedded import Embedded
from monitor.roles.explaining import explain
from monitor.service import restate_now


def test_the_first_terms_of_a_log_hold(tmp_path: Path) -> None:
    """Whoever comes later agrees to them, or is told what differs."""
    log = SqliteLog(tmp_path / "log.db")
    first = agree_on_terms(FactsReader(log), log, Accounting(), 100.0)
    assert first == Accounting()
    others = msgspec.structs.replace(first, label_keys=("use_case",))
    assert agree_on_terms(FactsReader(log), log, others, 200.0) == first
    with pytest.raises(TermsChanged, match=r"window_seconds is 20.0, but the books are kept under 10.0"):
        agree_on_terms(FactsReader(log), log, msgspec.structs.replace(first, window_seconds=20.0), 300.0)


def test_books_of_another_method_are_left_alone(tmp_path: Path) -> None:
    """Other rows beside the old ones would be no books; the way out is named, and it is not a setting."""
    log = SqliteLog(tmp_path / "log.db")
    log.append([accounting_record(Accounting(method="virtual-energy.1"))], 100.0)
    with pytest.raises(TermsChanged, match=r"kept by the method 'virtual-energy.1'.* run the version that began them"):
        agree_on_terms(FactsReader(log), log, Accounting(), 200.0)


def test_neither_restating_nor_explaining_computes_by_a_method_that_is_not_known(tmp_path: Path) -> None:
    """Both say so, and leave the books alone."""
    with Embedded(tmp_path, Config()) as house:
        house.log.append([accounting_record(Accounting(method="virtual-energy.1"))], 100.0)
        with pytest.raises(TermsChanged, match=r"kept by the method 'virtual-energy.1'"):
            restate_now(house, 2_000.0)
        with pytest.raises(TermsChanged, match=r"kept by the method 'virtual-energy.1'"):
            explain(house.log, house.store, "r", 0.0, 1e9)


def test_books_begun_by_another_known_method_are_restated_by_it(tmp_path: Path) -> None:
    """Restating needs no word of the method: it stands in the books."""
    with Embedded(tmp_path, Config()) as house:
        house.log.append([accounting_record(Accounting(method="token-share.4"))], 100.0)
        assert restate_now(house, 2_000.0) == 900.0


def test_books_of_a_known_method_go_on_by_it_alone(tmp_path: Path) -> None:
    """A replay by token shares is not mixed with one by the default."""
    log = SqliteLog(tmp_path / "log.db")
    agree_on_terms(FactsReader(log), log, Accounting(method="token-share.4"), 100.0)
    with pytest.raises(
        TermsChanged, match=r"kept by the method token-share.4, not by virtual-energy.5: books are never kept by two"
    ):
        agree_on_terms(FactsReader(log), log, Accounting(), 200.0)
