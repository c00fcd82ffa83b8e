"""The Grafana board: its names are those of the books, and each of its queries gives, on a real server, what the gate
gives."""

import http.client
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
from click.testing import CliRunner
from servers.influxd import TOKEN, InfluxServer

from collectors.recording import load_recording
from collectors.simulate.presets import PRESETS
from collectors.simulate.simulate import simulate
from monitor.cli.main import cli
from monitor.config.sections import Config
from monitor.core.allocation_lines import AllocationLine, AllocationTotals
from monitor.core.points import BOOKS, HOLE, MEASUREMENTS, METER, PROVISIONAL, RESTATEMENT, Row
from monitor.core.questions import AllocationQuery, Principal
from monitor.dashboards.board import grafana_board
from monitor.query import Query, whole_allocation
from monitor.roles.embedded import Embedded
from monitor.service import replay_into
from monitor.store.influx import InfluxStore
from monitor.store.influx_setup import Setup
from monitor.store.retention import Retention
from monitor.store.rollup import write_rollups

BUCKET, WINDOW, NEWEST = "board", 10.0, 12
MISSING_SECONDS = 6.0
BOARD = grafana_board(bucket=BUCKET, window_seconds=WINDOW)
VARIABLES = {each["name"]: each for each in BOARD["templating"]["list"]}
PANELS = {panel["title"]: panel for panel in BOARD["panels"] if panel["type"] != "row"}
TARGETS = [(title, target["refId"]) for title, panel in PANELS.items() for target in panel["targets"]]
ADMIN = Principal(name="root", role="admin")
KEEP = Retention(**{f"{name}_seconds": math.inf for name in ("windows", "requests", "provisional", "hours", "days")})

targets = pytest.mark.parametrize(("title", "ref"), TARGETS)


def _query_of(title: str, ref: str = "A") -> str:
    text: str = next(each["query"] for each in PANELS[title]["targets"] if each["refId"] == ref)
    return text


def _regex(values: list[str]) -> str:
    """What Grafana makes of ${name:regex}: values escaped, several in brackets; "all" is the allValue as it is."""
    escaped = [re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


class Filled(NamedTuple):
    """A server with a replayed recording in it, and the gate to it."""

    server: InfluxServer
    query: Query
    start: float
    end: float

    def render(self, text: str, *, step_seconds: float = 60.0, source: str = "windows", **chosen: list[str]) -> str:
        """The query as Grafana would send it for this interval; without a choice, all."""
        first, last = round(self.start * 1000), round(self.end * 1000)
        text = text.replace("$timeFilter", f"time >= {first}ms and time < {last}ms")
        text = text.replace("$__interval", f"{step_seconds:g}s")
        for name in ("host", "model", "team"):
            text = text.replace(f"${{{name}:regex}}", _regex(chosen[name]) if name in chosen else ".*")
        text = text.replace("$source", next(o["value"] for o in VARIABLES["source"]["options"] if o["text"] == source))
        for name, variable in VARIABLES.items():
            if variable["type"] == "constant":
                text = text.replace(f"${name}", variable["query"])
        assert "$" not in text.replace("$/", ""), text
        return text

    def ask(self, text: str, **named: Any) -> list[dict[str, Any]]:
        """The series of the answer, each with tags, columns and values."""
        form = urlencode({"db": BUCKET, "q": self.render(text, **named), "epoch": "ms"})
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Token {TOKEN}"}
        connection.request("POST", "/query", form, headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, told
        [result] = told["results"]
        assert "error" not in result, (result, text)
        found: list[dict[str, Any]] = result.get("series", [])
        return found

    def sums(self, title: str, ref: str = "A", **named: Any) -> dict[tuple[str, ...], tuple[float | None, ...]]:
        """By the series' tags, the sum of each column over time."""
        return {
            tuple(series.get("tags", {}).values()): tuple(
                math.fsum(row[place] or 0.0 for row in series["values"]) for place in range(1, len(series["columns"]))
            )
            for series in self.ask(_query_of(title, ref), **named)
        }

    def lines(self, *by: str) -> dict[tuple[str, ...], AllocationLine]:
        """What the gate says, by account and key."""
        asked = AllocationQuery(start=self.start, end=self.end, by=by, include_provisional=False)
        return {
            (each.line.account, *each.line.key): each.line for each in whole_allocation(self.query, ADMIN, asked).lines
        }

    def totals(self) -> AllocationTotals:
        asked = AllocationQuery(start=self.start, end=self.end, include_provisional=False)
        found = whole_allocation(self.query, ADMIN, asked).totals
        assert found is not None
        return found


def _refuse(line: str, reason: str) -> None:
    raise AssertionError(f"{reason}: {line}")


@pytest.fixture(scope="module", params=["influxd", "influxdb1"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Ten simulated minutes of three models and four teams, final; two provisional too; a hole, a restatement."""
    server: InfluxServer = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("board")
    simulate(PRESETS["demo"](10), 1, folder / "recording")
    config = Config()
    with Embedded(folder / "data", config) as house:
        loaded = load_recording(folder / "recording", allowed_labels=config.accounting.label_keys)
        start, end = replay_into(house, [loaded]).span(WINDOW)
        rows = [row for each in BOOKS for row in house.store.read(each, start, end)]
    first = next(place for place, row in enumerate(rows) if row.measurement == METER.name)
    rows[first] = _less_covered(rows[first])
    setup = Setup(server.settings(BUCKET))
    list(setup.mend(KEEP))
    setup.close()
    store = InfluxStore(server.settings(BUCKET), quarantine=_refuse)
    host = rows[0].tags[0]
    store.write([*rows, _restated(host, start), _hole(host, start)])
    write_rollups(store, [start // 3600 * 3600], [])
    names = {each.name: provisional.name for each, provisional in zip(BOOKS, PROVISIONAL, strict=True)}
    for time in sorted({row.time for row in rows if row.time >= end - NEWEST * WINDOW}):
        window = [msgspec.structs.replace(row, measurement=names[row.measurement]) for row in rows if row.time == time]
        store.replace_provisional(host, time, window)
    yield Filled(server, Query(store, rejected=dict), start, end)
    store.close()


def _less_covered(row: Row) -> Row:
    """A device that was not read for six of its window's ten seconds."""
    place = METER.fields.index("covered_seconds")
    return msgspec.structs.replace(
        row, fields=(*row.fields[:place], WINDOW - MISSING_SECONDS, *row.fields[place + 1 :])
    )


def _hole(host: str, time: float) -> Row:
    known = {"missing_seconds": 30.0, "reason": "retention"}
    return Row(HOLE.name, time, (host,), tuple(known.get(name) for name in HOLE.fields))


def _restated(host: str, mark: float) -> Row:
    known = {"windows": 3.0, "old_energy_joules": 10.0, "new_energy_joules": 12.0, "reason": "late"}
    return Row(RESTATEMENT.name, mark, (host,), tuple(known.get(name) for name in RESTATEMENT.fields))


@targets
def test_every_query_gives_rows(filled: Filled, title: str, ref: str) -> None:
    """On a real server, rendered as Grafana would; one of hours too where it may be asked."""
    text = _query_of(title, ref)
    assert [value for series in filled.ask(text) for row in series["values"] for value in row[1:] if value is not None]
    if "$source" in text:
        wide = filled._replace(start=filled.start // 3600 * 3600, end=filled.start // 3600 * 3600 + 3600)
        assert wide.ask(text, source="hours", step_seconds=3600.0)


@pytest.mark.parametrize("name", ["host", "model", "team"])
def test_variables_offer_what_is_in_the_books(filled: Filled, name: str) -> None:
    """Hosts, models and teams, to choose from."""
    [series] = filled.ask(VARIABLES[name]["query"])
    assert {value for _, value in series["values"]} == {
        key[1] for key in filled.lines(name) if not key[1].startswith("__")
    }


def test_sums_are_those_of_the_gate(filled: Filled) -> None:
    """Tiles, both stacks and the line above them, to 1e-9: Grafana adds by itself."""
    totals = filled.totals()
    told = {
        "measured": filled.sums("Measured")[()][0],
        "attributed": filled.sums("Attributed")[()][0],
        "line": filled.sums("Energy by model", "D")[()][0],
        "idle": filled.sums("Energy by model", "B")[()][0],
        "unattributed": filled.sums("Energy by team", "C")[()][0],
        "emissions": filled.sums("Emissions")[()][0],
        "idle part": filled.sums("Idle")[()][0],
        "unattributed part": filled.sums("Unattributed")[()][0],
        "missing": filled.sums("Seconds not measured")[()][0],
    }
    accounted = totals.attributed_joules + totals.idle_joules + totals.unattributed_joules
    expected = {
        "measured": totals.measured_joules,
        "attributed": totals.attributed_joules,
        "line": totals.measured_joules,
        "idle": totals.idle_joules,
        "unattributed": totals.unattributed_joules,
        "emissions": totals.emissions_grams,
        "idle part": totals.idle_joules / accounted,
        "unattributed part": totals.unattributed_joules / accounted,
        "missing": MISSING_SECONDS,
    }
    assert told == {name: pytest.approx(value, rel=1e-9, abs=1e-6) for name, value in expected.items()}


@pytest.mark.parametrize(("title", "by"), [("Energy by model", "model"), ("Energy by team", "team")])
def test_stacks_are_the_lines_of_the_gate(filled: Filled, title: str, by: str) -> None:
    """Each model's and team's joules."""
    told = {("attributed", *key): sums[0] for key, sums in filled.sums(title).items()}
    expected = {key: line.energy_joules for key, line in filled.lines(by).items() if key[0] == "attributed"}
    assert told == {key: pytest.approx(joules, rel=1e-9) for key, joules in expected.items()}


def test_the_allocation_table_is_the_report(filled: Filled) -> None:
    """Joules, grams, requests and tokens by model and team; idle and unattributed as lines of their own."""
    used = {key: line for key, line in filled.lines("model", "team").items() if key[0] == "attributed"}
    energy, usage = filled.sums("Allocation"), filled.sums("Allocation", "B")
    assert {key for key in energy if key[0] == "attributed"} == used.keys()
    assert {key[0] for key in energy if key[1:] == ("", "")} == {"idle", "unattributed"}
    for key, line in used.items():
        figures = (line.energy_joules, line.emissions_grams, line.metered_joules)
        assert energy[key] == tuple(pytest.approx(value, rel=1e-9) for value in figures)
        figures = (line.requests, line.input_tokens, line.output_tokens)
        assert usage[key[1:]] == tuple(pytest.approx(value, rel=1e-9) for value in figures)


def test_the_reasons_add_up_to_what_is_unattributed(filled: Filled) -> None:
    """Each is the gate's."""
    told = {ref: filled.sums("Why unattributed", ref)[()][0] for ref in "ABCD"}
    reasons = filled.totals().unattributed_reasons
    names = dict(zip("ABCD", ("unknown_device", "other_process", "gap", "unreported"), strict=True))
    assert told == {ref: pytest.approx(reasons[name], rel=1e-9, abs=1e-9) for ref, name in names.items()}


def test_the_books_close_on_the_board(filled: Filled) -> None:
    """measured + disagreement - accounted, as its table computes it, is rounding."""
    measured, disagreement, accounted = (filled.sums("Do the books close?", ref) for ref in "ABC")
    assert measured.keys() == disagreement.keys() == accounted.keys()
    for host, (joules,) in measured.items():
        assert joules + (disagreement[host][0] or 0.0) == pytest.approx(accounted[host][0], rel=1e-9)


def test_a_choice_narrows_what_it_names(filled: Filled) -> None:
    """One model of three, two teams of four; a host that is not there gives nothing; idle knows no model."""
    lines = filled.lines("model", "team")
    [first, second, *_] = sorted({key[1] for key in lines if key[0] == "attributed"})
    told = filled.sums("Attributed", model=[first])[()][0]
    assert told == pytest.approx(math.fsum(each.energy_joules for key, each in lines.items() if key[1] == first))
    told = filled.sums("Attributed", model=[first, second])[()][0]
    wanted = math.fsum(each.energy_joules for key, each in lines.items() if key[1] in (first, second))
    assert told == pytest.approx(wanted)
    assert filled.ask(_query_of("Attributed"), host=["no.such/host"]) == []
    assert filled.sums("Energy by model", "B", model=[first]) == filled.sums("Energy by model", "B")


def test_provisional_windows_stand_apart(filled: Filled) -> None:
    """The last two minutes alone have provisional rows, and no other panel reads them."""
    told = filled.sums("Provisional energy by model", step_seconds=WINDOW)
    asked = AllocationQuery(
        start=filled.end - NEWEST * WINDOW, end=filled.end, by=("model",), include_provisional=False
    )
    lines = whole_allocation(filled.query, ADMIN, asked).lines
    expected = {each.line.key: each.line.energy_joules for each in lines if each.line.account == "attributed"}
    assert told == {key: (pytest.approx(joules, rel=1e-9),) for key, joules in expected.items()}
    readers = {title for title, ref in TARGETS if "provisional" in _query_of(title, ref)}
    assert readers == {"Provisional watts per device", "Provisional energy by model"}


@targets
def test_names_are_those_of_the_books(title: str, ref: str) -> None:
    """Every measurement, tag and field of a query is in the list; what else is quoted it has named itself."""
    text = _query_of(title, ref)
    names = re.findall(r'FROM "\$\w+"\.\."(\w+)"', text)
    assert names
    assert set(names) <= MEASUREMENTS.keys()
    known = {name for each in names for name in (*MEASUREMENTS[each].tags, *MEASUREMENTS[each].fields)}
    aliases = set(re.findall(r'AS "([\w ]+)"', text))
    quoted = set(re.findall(r'"([\w ]+)"', re.sub(r'"\$\w+"\.\."\w+"', "", text)))
    assert quoted - aliases <= known
    alias = next(each["alias"] for each in PANELS[title]["targets"] if each["refId"] == ref)
    assert set(re.findall(r"\$tag_(\w+)", alias)) <= set(re.findall(r'"(\w+)"', text.partition("GROUP BY")[2]))


def test_the_board_is_one_that_grafana_imports() -> None:
    """Panels that Grafana 11 to 13 has, ids once, nothing over another, one data source for all, by a variable."""
    for name in ("id", "title"):
        told = [panel[name] for panel in BOARD["panels"]]
        assert len(told) == len(set(told))
    assert {panel["type"] for panel in BOARD["panels"]} <= {"row", "stat", "timeseries", "table", "bargauge"}
    assert (BOARD["uid"], BOARD["schemaVersion"], "id" in BOARD) == ("wattribute", 39, False)
    for panel in PANELS.values():
        assert panel["datasource"] == {"type": "influxdb", "uid": "${datasource}"}
        assert panel["description"]
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_the_command_prints_the_board_of_this_configuration(tmp_path: Any) -> None:
    """Another bucket and window stand in its variables, and nowhere the default's."""
    config = tmp_path / "config.toml"
    config.write_text('[influxdb]\nbucket = "joules"\n[accounting]\nwindow = "1m"\n')
    done = CliRunner().invoke(cli, ["dashboards", "export", "grafana", "--config", str(config)])
    assert done.exit_code == 0, done.output
    board = json.loads(done.stdout)
    values = {each["name"]: each["query"] for each in board["templating"]["list"]}
    assert values["source"] == "windows : joules, hours : joules_hours, days : joules_days"
    assert (values["windows"], values["provisional"], values["window_seconds"]) == (
        "joules",
        "joules_provisional",
        "60",
    )
    assert '"wattribute_' not in done.stdout
    assert {panel["interval"] for panel in board["panels"] if "interval" in panel} == {"60s"}
