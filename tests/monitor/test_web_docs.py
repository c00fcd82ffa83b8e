"""docs/api.md tells what the tables take and the metrics server gives."""

import re
from pathlib import Path

import pytest
from daemon_snapshots import daemon

from monitor.metrics_text import render
from monitor.selfmetrics import LedgerSnapshot, ShipSnapshot
from monitor.web.app import DOCUMENT_PATH, OPERATIONS
from monitor.web.openapi import Operation

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.path)
def test_the_page_tells_every_parameter_with_its_default(operation: Operation) -> None:
    """In the order of the table, and none besides."""
    section = PAGE.partition(f"## {operation.path}\n")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`)? ?\|", section, flags=re.MULTILINE)
    assert told == [(each.name, each.default or "") for each in operation.parameters]


def test_the_page_tells_every_address() -> None:
    """In the order of the document."""
    told = re.findall(r"^\| `(/[^`]*)` \|", PAGE, flags=re.MULTILINE)
    assert told == [*(each.path for each in OPERATIONS), DOCUMENT_PATH, "/"]


def test_the_page_tells_every_metric_with_its_labels() -> None:
    """In the order in which they come."""
    told = re.findall(r"^\| `wattribute_(\w+)` \| ([a-z, ]*) ?\|", PAGE, flags=re.MULTILINE)
    ledger = LedgerSnapshot(
        partitions=(0, 3), waiting_records=7, worst_imbalance_ratio=3e-15, final_until=9.0, log_time=9.0
    )
    ship = ShipSnapshot(shipped_records=1, waiting_records=0, lost_records=0)
    text = render(daemon(ledger=ledger, ship=ship, refused_records=0, refused_rows={"refused": 0})).decode()
    assert [name for name, _ in told] == re.findall(r"^# TYPE wattribute_(\w+)", text, flags=re.MULTILINE)
    for name, labels in told:
        sample = re.search(rf"^wattribute_{name}(?:_count)?(?:{{(.*)}})? ", text, flags=re.MULTILINE)
        assert sample is not None
        assert set(re.findall(r'(\w+)="', sample[1] or "")) == set(labels.replace(",", " ").split()), name
