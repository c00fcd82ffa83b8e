import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from books_rows import energy, hole, made, meter, request, usage
from click.testing import CliRunner

from monitor.cli.moments import duration, moment
from monitor.cli.report import report
from monitor.core.points import PROVISIONAL_METER, RESTATEMENT
from monitor.core.questions import AllocationQuery, Denied, Principal
from monitor.query import Query
from monitor.reports import table, text_csv, text_json
from monitor.reports.statement import request_csv, statement
from monitor.reports.statement_text import emissions, render_json, render_text
from monitor.reports.statement_text import energy as energy_text
from monitor.store.sqlite import SqliteStore

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z
ADMIN = Principal(name="root", role="admin")
TEAM = Principal(name="ann", role="team", teams=frozenset("a"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two windows of one host: 1 000.1 J, of which a has 600.1 J, b 200 J (modelled), 150 J idle, 50 J unreported."""
    store = SqliteStore(tmp_path / "store.db")
    chat = '{"use_case":"chat"}'
    store.write(
        [
            meter(NOON, 700.0, metered_joules=500.0),
            meter(NOON + 10, 300.1),
            energy(NOON, 500.0, model="m", team="a", labels=chat, exact_joules=100.0),
            energy(NOON + 10, 100.1, model="m", team="a", labels=chat, estimated_start_joules=36.0),
            energy(NOON, 200.0, model="n", team="b", metered_joules=0.0, location_grams=None, factor=None),
            energy(NOON, 0.0, "idle", idle_source="configured"),
            energy(NOON + 10, 150.0, "idle", idle_source="configured"),
            energy(NOON, 0.0, "unattributed"),
            energy(NOON + 10, 50.0, "unattributed", unreported_joules=50.0),
            usage(NOON, 1.0, model="m", team="a", labels=chat, scheduled_requests=1.0),
            usage(NOON, 2.0, model="n", team="b", input_tokens=None, output_tokens=None, untold_requests=2.0),
            request(NOON, "r1", 500.0, exact_joules=100.0, start=NOON + 1, end=NOON + 12),
            request(NOON + 10, "r1", 100.1, start=NOON + 1, end=NOON + 12),
            request(
                NOON, "r2", 200.0, team="b", model="n", start=NOON, end=NOON + 9, input_tokens=None, status="error"
            ),
            made(
                RESTATEMENT,
                NOON + 900,
                {"host": "h1"},
                {"reason": "late requests", "windows": 1.0, "first_window": NOON},
            ),
        ]
    )
    store.replace_provisional("h1", NOON + 20, [meter(NOON + 20, 77.0, PROVISIONAL_METER)])
    store.close()
    return tmp_path


@pytest.fixture
def query(folder: Path) -> Iterator[Query]:
    store = SqliteStore(folder / "store.db", read_only=True)
    yield Query(store, rejected=lambda: {"bad_json": 2})
    store.close()


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(report, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_table_csv_and_json_hold_the_same_digits(folder: Path) -> None:
    """Every cell of the table is in the CSV as it is, every cell of the CSV is JSON's number."""
    asked = ("--from", NOON, "--to", "2023-11-15T12:01:00Z", "--by", "team,label:use_case", "--data", folder)
    asked = (*asked, "--include-idle", "--share-idle", "host", "--step", "10s")
    as_csv = list(csv.DictReader(io.StringIO(_run(*asked, "--format", "csv"))))
    as_json = json.loads(_run(*asked, "--format", "json"))["lines"]
    head, _, *lines = _run(*asked).split("\n\n")[0].splitlines()
    as_table = [dict(zip(head.split(), line.split(), strict=True)) for line in lines]
    assert [{key: "" if value is None else str(value) for key, value in line.items()} for line in as_json] == as_csv
    assert len(as_table) == len(as_csv) == 5
    for shown, line in zip(as_table, as_csv, strict=True):
        assert {"idle_share_joules", "idle_share_grams"} <= shown.keys()
        assert {key: "" if value == "-" else value for key, value in shown.items()} == {key: line[key] for key in shown}
    assert (
        as_csv[0] | {"energy_joules": "500.0", "label:use_case": "chat", "start": "2023-11-15T12:00:00.000Z"}
        == as_csv[0]
    )
    assert as_csv[3] | {"team": "a", "energy_joules": "100.1", "idle_share_joules": "150.0"} == as_csv[3]


def test_the_table_ends_with_the_books(folder: Path) -> None:
    """Measured, attributed, idle, unattributed and what is provisional, all with their digits."""
    text = _run("--from", "2023-11-15", "--to", "2023-11-16", "--data", folder, "--by", "team")
    assert [line.split()[:3] for line in text.splitlines()[2:4]] == [
        ["a", "attributed", "600.1"],
        ["b", "attributed", "200.0"],
    ]
    assert "measured        1077.1 J" in text
    assert "provisional     77.0 J" in text
    assert "factor          FR 2023" in text


def test_an_empty_interval_says_so(folder: Path) -> None:
    """No row is not zero joules of somebody."""
    assert _run("--from", "2001-01-01", "--to", "2001-01-02", "--data", folder).startswith("no energy in this interval")


def _hints(folder: Path, *arguments: object) -> str:
    done = CliRunner().invoke(report, ["--data", str(folder), *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stderr


def test_an_interval_without_the_stores_windows_names_them(folder: Path) -> None:
    """The store's first window starts at noon, its newest, still provisional, 20 s later."""
    told = _hints(folder, "--from", "2023-11-16", "--to", "2023-11-17")
    span = "--from 2023-11-15T12:00:00.000Z --to 2023-11-15T12:00:21.000Z"
    assert told == (
        "report: no window of the store starts in this interval; its first starts at 2023-11-15T12:00:00.000Z,"
        f" its newest at 2023-11-15T12:00:20.000Z: try {span}\n"
    )
    assert _hints(folder, "--from", "2023-11-14", "--to", "2023-11-15T12:00:00Z") == told
    assert _hints(folder, *span.split()) == ""
    assert "measured        1077.1 J" in _run("--data", folder, *span.split())


def test_what_the_log_lost_is_told_beside_the_figures(folder: Path, query: Query) -> None:
    """By a report of an interval in which it is, and by the statement of it; by no other."""
    store = SqliteStore(folder / "store.db")
    store.write([hole(NOON + 20, 40.0)])
    store.close()
    told = _hints(folder, "--from", NOON, "--to", NOON + 30)
    assert told == (
        "report: h1 is missing from 2023-11-15T12:00:20.000Z to 2023-11-15T12:01:00.000Z, which is in no figure: the"
        " log lost records before they were accounted (usage was made anew)\n"
    )
    assert _hints(folder, "--from", NOON, "--to", NOON + 20) == ""
    text = render_text(statement(query, ADMIN, NOON, NOON + 30))
    assert "missing, not zero: h1 from 2023-11-15T12:00:20.000Z to" in text
    assert [each.host for each in statement(query, ADMIN, NOON, NOON + 30).holes] == ["h1"]
    assert statement(query, ADMIN, NOON, NOON + 20).holes == ()


def test_a_store_without_windows_says_so(tmp_path: Path) -> None:
    """Before the daemon's first window."""
    SqliteStore(tmp_path / "store.db").close()
    assert _hints(tmp_path) == "report: the store holds no window yet\n"


def test_a_label_that_nobody_carries_is_named(folder: Path) -> None:
    """A key that is mistyped, or not kept, is told from teams that do not label."""
    interval = ("--from", NOON, "--to", NOON + 60)
    assert _hints(folder, *interval, "--by", "team,label:nope") == (
        "report: no request carries the label 'nope'; [accounting] label_keys of the daemon decide which labels are"
        " kept\n"
    )
    assert _hints(folder, *interval, "--by", "team,label:use_case") == ""


def test_a_team_with_a_terminal_code_in_its_name_is_shown_harmless(query: Query) -> None:
    """An escape sequence is written out, not obeyed."""
    page = query.allocation(ADMIN, AllocationQuery(start=NOON, end=NOON + 60, by=("team",)))
    line = msgspec.structs.replace(page.lines[0].line, key=("\x1b[31mred",))
    wild = msgspec.structs.replace(page, lines=(msgspec.structs.replace(page.lines[0], line=line),))
    assert "\x1b" not in table.render(wild)
    assert "\\x1b[31mred" in table.render(wild)
    assert "\\u001b" in text_json.render(wild)
    assert "\x1b[31mred" in text_csv.render(wild)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--by", "colour"), 2, "report: --by: 'colour' is none of model"),
        (("--from", "tomorrow"), 2, "'tomorrow' is not a moment"),
        (("--step", "0h"), 2, "'0h' is not a duration"),
        (("--from", "now", "--to", "-1h"), 2, "report: --to: must lie behind the start"),
        (("--data", "nowhere"), 3, "check that the folder exists"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    folder: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """One line on standard error, and an exit code that tells the question's fault from the store's."""
    done = CliRunner().invoke(report, ["--data", str(folder), *arguments], catch_exceptions=False)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stdout == ""


def test_the_configuration_names_directory_and_owners(folder: Path) -> None:
    """b owns the idle of the whole host: 150 J."""
    config = folder / "config.toml"
    config.write_text(f'[data]\ndirectory = "{folder}"\n[idle]\nowners = {{ "h1" = "b" }}\n')
    asked = ("--config", config, "--from", NOON, "--to", NOON + 60, "--by", "team", "--share-idle", "owner")
    lines = json.loads(_run(*asked, "--format", "json"))["lines"]
    assert [(line["team"], line["idle_share_joules"]) for line in lines if line["idle_share_joules"]] == [("b", 150.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOON + 5),
        ("today", NOON - 43_200),
        ("month", NOON - 43_200 - 14 * 86_400),
        ("-24h", NOON + 5 - 86_400),
        ("-1.5h", NOON + 5 - 5_400),
        ("2023-11-15", NOON - 43_200),
        ("2023-11-15T13:00:00+01:00", NOON),
        ("1700049600", NOON),
    ],
)
def test_moments_are_written_in_many_ways(text: str, expected: float) -> None:
    """At 12:00:05 UTC on 15 November 2023."""
    assert moment(text, NOON + 5) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "-", "-24", "2023-11-15T12:00:00", "2023-13-01", "1700049600000"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """A time without a zone, a month 13, milliseconds."""
    with pytest.raises(ValueError, match="is not a"):
        moment(text, NOON)


def test_durations_have_a_unit() -> None:
    """1h is 3 600 s, 2w are 1 209 600 s."""
    assert (duration("1h"), duration("2w"), duration("1.5m")) == (3_600.0, 1_209_600.0, 90.0)


def test_a_statement_holds_final_books_and_their_quality(query: Query) -> None:
    """1 000.1 J = 800.1 + 150 + 50; 80 % metered; b's 200 J have no factor; 77 J more are not final yet."""
    found = statement(query, ADMIN, NOON, NOON + 3_600)
    assert (found.measured_joules, found.attributed_joules) == (1000.1, 800.1)
    assert (found.idle_joules, found.unattributed_joules) == (150.0, 50.0)
    assert found.measured_ratio == 800.1 / 1000.1
    assert [(line.model, line.team, line.energy_joules, line.requests, line.input_tokens) for line in found.by] == [
        ("m", "a", 600.1, 1.0, 10.0),
        ("n", "b", 200.0, 2.0, None),
    ]
    assert (found.windows, found.rejected) == (2, {"bad_json": 2})
    assert found.worst_imbalance < 1e-15
    assert found.emissions_grams == math.fsum([50.0, 100.1 / 10, 15.0, 5.0])
    assert found.factorless_joules == 200.0
    assert (found.provisional.measured_joules, found.provisional.windows) == (77.0, 1)
    assert [(each.host, each.reason) for each in found.restatements] == [("h1", "late requests")]
    assert [(each.device, each.energy_joules, each.idle_sources) for each in found.idle_devices] == [
        ("gpu0", 150.0, ("configured",))
    ]


def test_a_statement_as_json_begins_with_the_promised_keys(query: Query) -> None:
    """Programs read these; more may follow."""
    found = json.loads(render_json(statement(query, ADMIN, NOON, NOON + 3_600)))
    assert list(found)[:9] == [
        "measured_joules",
        "attributed_joules",
        "idle_joules",
        "unattributed_joules",
        "measured_ratio",
        "by",
        "windows",
        "worst_imbalance",
        "rejected",
    ]
    keys = ["model", "team", "energy_joules", "emissions_grams", "requests", "input_tokens", "output_tokens"]
    assert list(found["by"][0])[:8] == [*keys, "measured_ratio"]
    assert (found["from"], found["to"]) == (NOON, NOON + 3_600)


def test_a_statement_as_text_says_how_good_each_number_is(query: Query) -> None:
    """A person reads whether the books close, what is metered, what has no factor, what was restated or rejected."""
    text = render_text(statement(query, ADMIN, NOON, NOON + 3_600))
    for line in (
        "Energy statement  2023-11-15T12:00:00.000Z to 2023-11-15T13:00:00.000Z",
        "0.278 Wh (1 000 J)",
        "80.0 % metered",
        "idle power: configured",
        "unreported 50.0 J",
        "books close: worst window off by 9e-17 (2 windows)",
        "without a factor, in no gram above: 0.056 Wh (200 J)",
        "not yet final, in no sum: 0.021 Wh (77.0 J) in 1 windows",
        "requests whose tokens nobody told: 2",
        "placed by estimated starts (queue or first token): 0.010 Wh (36.0 J)",
        "rejected: 2 x bad_json",
        "restated at 2023-11-15T12:15:00.000Z: h1, 1 windows, late requests",
    ):
        assert line in text


def test_requests_that_no_meter_saw_are_counted_as_missing(tmp_path: Path) -> None:
    """r1 ran where nothing was metered; r2 was metered at 0 W, which is 0 J."""
    store = SqliteStore(tmp_path / "store.db")
    store.write([request(NOON, "r1", 0.0, location_grams=None), request(NOON, "r2", 0.0), request(NOON, "r3", 5.0)])
    found = statement(Query(store, rejected=dict), ADMIN, NOON, NOON + 60)
    store.close()
    assert found.unmetered_requests == 1
    assert "1 request ran where nothing was metered: its energy is missing, not zero" in render_text(found)
    many = msgspec.structs.replace(found, unmetered_requests=1_200)
    assert "1 200 requests ran where nothing was metered: their energy is missing, not zero" in render_text(many)


def test_a_statement_fits_a_terminal_of_80_columns(query: Query) -> None:
    """Megajoules, kilograms and thousands of requests; notes that are longer go on in the next line."""
    found = statement(query, ADMIN, NOON, NOON + 3_600)
    lines = tuple(
        msgspec.structs.replace(
            line,
            model="llama-3.1-8b",
            team="research",
            energy_joules=1e8,
            emissions_grams=1e4,
            input_tokens=1.2e6,
            low_joules=8.5e7,
            high_joules=1.12e8,
        )
        for line in found.by
    )
    large = msgspec.structs.replace(
        found,
        by=lines,
        measured_joules=2e7,
        unattributed_reasons={"gap": 1e6, "unreported": 2e6, "unknown_device": 3e6},
        factors=("FR 41.44 g/kWh (a table with a long name: yearly mix, year not stated), PUE 1.2, location-based",),
    )
    text = render_text(large)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "  gap 1 000 000 J, unreported 2 000 000 J, unknown_device 3 000 000 J\n" in text


def test_a_window_that_is_off_is_shouted(tmp_path: Path) -> None:
    """9 J on the right of 10 J: 10 %."""
    store = SqliteStore(tmp_path / "store.db")
    store.write([meter(NOON, 10.0), energy(NOON, 9.0, model="m")])
    found = statement(Query(store, rejected=dict), ADMIN, NOON, NOON + 60)
    assert found.worst_imbalance == 0.1
    assert "BOOKS DO NOT CLOSE: worst window off by 0.1" in render_text(found)
    store.close()


def test_a_statement_is_not_for_a_team(query: Query) -> None:
    """It tells what all teams used."""
    with pytest.raises(Denied, match="its own lines"):
        statement(query, TEAM, NOON, NOON + 60)


def test_units_are_those_that_people_read() -> None:
    """7.2e6 J are 2 kWh, 3 600 J are 1 Wh; grams become kilograms at 1 000."""
    assert energy_text(7.2e6) == "2.000 kWh (7 200 000 J)"
    assert energy_text(3_600.0) == "1.000 Wh (3 600 J)"
    assert (emissions(999.0), emissions(1_500.0), emissions(None)) == ("999.000 g CO2e", "1.500 kg CO2e", "unknown")


def test_requests_are_lines_of_a_csv(query: Query) -> None:
    """Each with its joules over all windows; unknown tokens are empty cells, a team gets its own alone."""
    out = io.StringIO()
    assert request_csv(query, ADMIN, NOON, NOON + 3_600, out) == 2
    head, first, second = out.getvalue().splitlines()
    assert head == (
        "request_id,model,team,energy_joules,emissions_grams,input_tokens,output_tokens,start,end,status,namespace,"
        "attempt,host,measured_ratio,exact_joules,work_unit,work_amount"
    )
    assert first == ("r1,m,a,600.1,60.01,10.0,5.0,1700049601.0,1700049612.0,ok,default,0,h1,1.0,100.0,,")
    assert second.startswith("r2,n,b,200.0,20.0,,5.0,1700049600.0,1700049609.0,error,")
    assert request_csv(query, TEAM, NOON, NOON + 3_600, io.StringIO()) == 1
