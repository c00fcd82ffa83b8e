import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from books_rows import energy, meter, usage
from click.testing import CliRunner, Result
from rich.console import Console

from monitor.cli.main import cli
from monitor.core.points import PROVISIONAL_ENERGY, PROVISIONAL_METER, PROVISIONAL_USAGE, Row
from monitor.core.questions import BadQuery, Denied, Principal, WindowsQuery
from monitor.log.protocol import DeadLetter
from monitor.log.sqlite import SqliteLog
from monitor.query import Query, every_meter
from monitor.reports.live import LiveView, live_view, render_live
from monitor.store.sqlite import SqliteStore

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z
ADMIN = Principal(name="root", role="admin")
TEAM = Principal(name="ann", role="team", teams=frozenset("a"))


def _provisional(*rows: Row) -> list[Row]:
    names = {"energy": PROVISIONAL_ENERGY, "meter": PROVISIONAL_METER, "usage": PROVISIONAL_USAGE}
    return [msgspec.structs.replace(row, measurement=names[row.measurement].name) for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """h1: a final window at noon and a provisional one 10 s later; its node meter contains the GPU's.

    h2: one window an hour and a half before, out of the last hour. gpu1 of h1 told nothing in the last window.
    """
    store = SqliteStore(tmp_path / "store.db")
    store.write(
        [
            meter(NOON - 5_400, 999.0, host="h2"),
            energy(NOON - 5_400, 999.0, host="h2", model="m", team="a"),
            meter(NOON, 100.0),
            meter(NOON, 50.0, device="gpu1"),
            energy(NOON, 60.0, model="m", team="a"),
            energy(NOON, 50.0, "idle", device="gpu1"),
            energy(NOON, 40.0, "unattributed"),
            usage(NOON, 2.0, model="m", team="a"),
        ]
    )
    rows = _provisional(
        meter(NOON + 10, 400.0, device="node0", kind="node", metered_joules=0.0),
        meter(NOON + 10, 300.0, covered_seconds=8.0, parent="node0"),
        meter(NOON + 10, 0.0, device="cpu0", kind="cpu", parent="node0"),
        meter(NOON + 10, 0.0, device="dram0", kind="dram", covered_seconds=0.0, metered_joules=None),
        energy(NOON + 10, 400.0, model="m", team="[red]b", location_grams=None, factor=None),
        usage(NOON + 10, 1.0, model="m", team="[red]b", input_tokens=None, output_tokens=None, untold_requests=1.0),
    )
    store.replace_provisional("h1", NOON + 10, rows)
    store.close()
    return tmp_path


@pytest.fixture
def query(folder: Path) -> Iterator[Query]:
    store = SqliteStore(folder / "store.db", read_only=True)
    yield Query(store, rejected=lambda: {"bad_json": 2})
    store.close()


def _shown(view: LiveView) -> list[str]:
    console = Console(width=150)
    with console.capture() as captured:
        console.print(render_live(view))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_power_is_energy_by_covered_seconds_and_missing_is_not_zero(query: Query) -> None:
    """300 J in 8 s are 37.5 W; 0 J in 10 s are 0 W; no covered second, and a window that lacks a device, are None."""
    view = live_view(query, ADMIN)
    assert view.devices is not None
    watts = {(each.host, each.device): each.power_watts for each in view.devices}
    assert watts == {
        ("h1", "dram0"): None,
        ("h1", "gpu1"): None,
        ("h1", "node0"): 40.0,
        ("h1", "cpu0"): 0.0,
        ("h1", "gpu0"): 37.5,
        ("h2", "gpu0"): None,
    }
    assert [each.device for each in view.devices if each.parent == "node0"] == ["cpu0", "gpu0"]
    assert {(each.host, each.device) for each in view.devices if each.stale} == {("h1", "gpu1"), ("h2", "gpu0")}
    assert {each.device: each.metered_ratio for each in view.devices if each.host == "h1"} == {
        "dram0": None,
        "gpu1": 1.0,
        "node0": 0.0,
        "cpu0": None,
        "gpu0": 1.0,
    }


def test_the_last_hour_is_that_of_the_store(query: Query) -> None:
    """The hour before the newest window: without what lies further back, with what is still provisional."""
    view = live_view(query, ADMIN)
    assert view.now == NOON + 10
    assert {(*line.key, line.account): (line.energy_joules, line.provisional_joules) for line in view.lines} == {
        ("m", "a", "attributed"): (60.0, 0.0),
        ("m", "[red]b", "attributed"): (400.0, 400.0),
        ("__idle__", "__idle__", "idle"): (50.0, 0.0),
        ("__unattributed__", "__unattributed__", "unattributed"): (40.0, 0.0),
    }
    longer = live_view(query, ADMIN, span_seconds=7_200.0)
    assert {line.key: line.energy_joules for line in longer.lines}["m", "a"] == 1_059.0
    assert (view.final_until, view.final_hosts, view.hosts) == (NOON - 5_400, 2, 2)
    assert view.rejected == {"bad_json": 2}


def test_the_span_ends_with_the_newest_window(query: Query) -> None:
    """A span of 10 s is one window of 10 s, not two."""
    assert [line.energy_joules for line in live_view(query, ADMIN, span_seconds=10.0).lines] == [400.0]


def test_zero_missing_and_provisional_look_different(query: Query) -> None:
    """Zero is "0.0", missing "–", and provisional has a "~"; a name in brackets is a name and no markup."""
    lines = _shown(live_view(query, ADMIN))
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in lines if line}
    assert rows["h1", "cpu0"] == ["cpu", "0.0", "~", "10.0", "–", "in", "node0"]
    assert rows["h1", "gpu0"] == ["gpu", "37.5", "~", "8.0", "100.0%", "in", "node0"]
    assert rows["h1", "dram0"] == ["dram", "–", "0.0", "–"]
    assert rows["h2", "gpu0"][:2] == ["gpu", "–"]
    assert rows["m", "a"] == ["60.0", "6.000", "2", "20", "10", "100.0%"]
    assert rows["m", "[red]b"] == ["400.0", "~", "–", "1", "–", "–", "100.0%"]
    assert rows["idle", "50.0"] == ["5.000", "–", "–", "–", "100.0%"]
    assert lines[0] == "newest window 2023-11-15T12:00:10.000Z   final up to 2023-11-15T10:30:00.000Z"
    assert "rejected: bad_json 2" in lines
    assert any(line.startswith("measured 550.0 J, attributed 460.0 J, idle 50.0 J") for line in lines)


def test_a_team_sees_its_own_lines_alone(query: Query) -> None:
    """Devices, totals and what was rejected tell what others did."""
    view = live_view(query, TEAM)
    assert [line.key for line in view.lines] == [("m", "a")]
    assert (view.devices, view.totals, view.rejected) == (None, None, None)
    assert not any("gpu0" in line or "idle" in line for line in _shown(view))
    with pytest.raises(Denied):
        query.meters(TEAM, WindowsQuery(start=0.0, end=1.0))


def _terminal(view: LiveView, height: int, most_lines: int | None = None) -> list[str]:
    console = Console(width=80, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(render_live(view, most_lines))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.fixture
def crowd(tmp_path: Path) -> LiveView:
    """Teams t1 .. t20 of one model with 1 .. 20 J, t1 without a factor; 5 J idle and 4 J unattributed."""
    store = SqliteStore(tmp_path / "store.db")
    rows = [energy(NOON, float(number), model="m", team=f"t{number}") for number in range(2, 21)]
    rows.append(energy(NOON, 1.0, model="m", team="t1", location_grams=None, factor=None))
    store.write([*rows, energy(NOON, 5.0, "idle"), energy(NOON, 4.0, "unattributed"), meter(NOON, 219.0)])
    view = live_view(Query(store, rejected=dict), ADMIN)
    store.close()
    return view


def test_lines_that_have_no_room_are_one_sum(crowd: LiveView) -> None:
    """Of t20 .. t1 two are shown; 18 + 17 + .. + 1 = 171 J are the rest, 17 g of them without t1's."""
    lines = _terminal(crowd, height=1_000, most_lines=2)
    place = next(number for number, line in enumerate(lines) if line.startswith("model"))
    assert [line.split()[:4] for line in lines[place + 1 : place + 6]] == [
        ["m", "t20", "20.0", "2.000"],
        ["m", "t19", "19.0", "1.900"],
        ["+18", "more", "171.0", "17.000"],
        ["idle", "5.0", "0.500", "–"],
        ["unattributed", "4.0", "0.400", "–"],
    ]
    assert any(line.startswith("measured 219.0 J") for line in lines[:place])
    assert any(line.startswith("factor FR 2023") for line in lines[:place])


@pytest.mark.parametrize("height", [20, 25, 30])
def test_a_terminal_is_filled_and_not_overfilled(crowd: LiveView, height: int) -> None:
    """As many lines as there is room for, and what is not shown is said."""
    lines = _terminal(crowd, height)
    assert len(lines) == height
    assert any(" more " in line for line in lines)
    assert any(line.startswith("unattributed") for line in lines)


def test_a_tall_terminal_shows_every_line(crowd: LiveView) -> None:
    """20 teams, and no sum of a rest."""
    lines = _terminal(crowd, height=60)
    assert sum(line.startswith("m ") for line in lines) == 20
    assert not any(" more " in line for line in lines)


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    """Nothing is not zero joules."""
    store = SqliteStore(tmp_path / "store.db")
    view = live_view(Query(store, rejected=dict), ADMIN)
    store.close()
    assert _shown(view) == ["No window in the store yet."]
    assert (view.now, view.lines, view.devices) == (None, (), ())


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_meters_come_in_pages(query: Query, limit: int) -> None:
    """Pages of any length hold every meter once, final and provisional, in the order of time, host and device."""
    asked = WindowsQuery(start=0.0, end=NOON + 20, limit=limit)
    found = [(each.time - NOON, each.device, each.provisional) for each in every_meter(query, ADMIN, asked)]
    assert found == [
        (-5_400.0, "gpu0", False),
        (0.0, "gpu0", False),
        (0.0, "gpu1", False),
        (10.0, "cpu0", True),
        (10.0, "dram0", True),
        (10.0, "gpu0", True),
        (10.0, "node0", True),
    ]
    with pytest.raises(BadQuery, match="after"):
        query.meters(ADMIN, WindowsQuery(start=0.0, end=1.0, after="nonsense"))


def _top(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["top", *(str(argument) for argument in arguments)], catch_exceptions=False)


def test_top_shows_the_view_once_where_there_is_no_terminal(folder: Path) -> None:
    """As text, or as JSON with all digits."""
    shown = _top("--data", folder)
    assert shown.exit_code == 0
    assert "Power in the newest window" in shown.stdout
    view = json.loads(_top("--data", folder, "--once", "--json").stdout)
    assert view["now"] == NOON + 10
    assert [line["energy_joules"] for line in view["lines"]] == [400.0, 60.0, 50.0, 40.0]


def test_top_counts_what_the_log_holds_as_rejected(folder: Path) -> None:
    """By reason; without a log there is nothing to count."""
    assert json.loads(_top("--data", folder, "--once", "--json").stdout)["rejected"] == {}
    log = SqliteLog(folder / "log.db")
    log.reject([DeadLetter(source="s", position="1", reason="bad_json", detail="", sha256="0" * 64, at=NOON)])
    log.close()
    assert json.loads(_top("--data", folder, "--once", "--json").stdout)["rejected"] == {"bad_json": 1}


def test_top_reads_the_place_from_the_configuration(folder: Path) -> None:
    """The data directory of the daemon, unless one is named."""
    config = folder / "config.toml"
    config.write_text(f"[data]\ndirectory = {json.dumps(str(folder))}\n")
    assert _top("--config", config, "--once").exit_code == 0


def test_top_without_a_store_says_so(tmp_path: Path) -> None:
    """Exit code 3 and one message that names the file."""
    done = _top("--data", tmp_path, "--once")
    assert done.exit_code == 3
    assert done.stderr.startswith("top: ")
    assert str(tmp_path / "store.db") in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_interval_that_is_none_is_wrong_use(folder: Path) -> None:
    """Exit code 2 and what to write."""
    done = _top("--data", folder, "--interval", "soon")
    assert done.exit_code == 2
    assert "is not a duration such as 15m" in done.stderr
