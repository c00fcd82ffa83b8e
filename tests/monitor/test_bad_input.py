"""Bad input through the whole house: cases B1 to B12 as far as they concern recordings, events and config.toml.

Each bad line stands between two good ones, whose joules must not change, and has to be named and counted.
"""

import gzip
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from monitor.cli.main import cli

T = 1_712_043_380.0
"""2024-04-02T07:36:20Z, on the edge of a window."""
HOST_TOML = 'host = "h1"\nzone = "FR"\n\n[[devices]]\nid = "g0"\nkind = "gpu"\nidle_watts = 50.0\n'
WATTS = [*[60.0] * 5, *[200.0] * 16, *[60.0] * 4, *[300.0] * 16, *[60.0] * 20]
"""At 0 .. 60 s: 60 W at rest, 200 W while alice's request runs, 300 W for bob's."""


def event(request_id: str, start: float, end: float, **more: Any) -> dict[str, Any]:
    """An event; times are seconds from the recording's start."""
    return {"request_id": request_id, "model": "m", "start": T + start, "end": T + end, **more}


ALICE = event("r-alice", 5.0, 20.0, team="alice", input_tokens=100, output_tokens=40)
BOB = event("r-bob", 25.0, 40.0, team="bob", input_tokens=200, output_tokens=90)
BAD = event("r-bad", 45.0, 50.0, team="eve", input_tokens=1, output_tokens=1)


def line(content: Any) -> bytes:
    """One line of requests.jsonl."""
    return json.dumps(content).encode() + b"\n"


def row(second: float, cell: object, device: str = "g0") -> bytes:
    """One line of readings.csv."""
    return f"{T + second!r},{device},{cell}\n".encode()


HEADER = b"time,device,power_watts\n"
ROWS = [row(second, watts) for second, watts in enumerate(WATTS)]
EVENTS = [line(ALICE), line(BOB)]


def recording(
    folder: Path,
    rows: Iterable[bytes] = (HEADER, *ROWS),
    events: Iterable[bytes] | None = EVENTS,
    host: str = HOST_TOML,
) -> Path:
    """A recording of these bytes."""
    folder.mkdir()
    (folder / "host.toml").write_text(host)
    (folder / "readings.csv").write_bytes(b"".join(rows))
    if events is not None:
        (folder / "requests.jsonl").write_bytes(b"".join(events))
    return folder


def wattribute(*arguments: str | Path) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def replayed(folder: Path, *more: str | Path) -> dict[str, Any]:
    """The statement; a replay that does not end well, or leaves an unbalanced window, fails the test."""
    result = wattribute("replay", folder, "--json", *more)
    assert result.exit_code == 0, result.output
    books: dict[str, Any] = json.loads(result.stdout)
    assert books["worst_imbalance"] <= 1e-9
    return books


def sums(books: dict[str, Any]) -> dict[str, Any]:
    """What the books say, without what was rejected."""
    return {name: value for name, value in books.items() if name != "rejected"}


def of_team(books: dict[str, Any], team: str) -> dict[str, Any]:
    """The one line of a team."""
    (found,) = [each for each in books["by"] if each["team"] == team]
    return dict(found)


def joules_of(books: dict[str, Any], team: str) -> dict[str, Any]:
    """The same without its band: how far a team may be off depends on what is known of those beside it."""
    return {name: value for name, value in of_team(books, team).items() if name not in {"low_joules", "high_joules"}}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The statement of the recording with nothing wrong in it."""
    return replayed(recording(tmp_path_factory.mktemp("clean") / "r"))


def test_clean_recording_is_what_it_is_by_hand(clean: dict[str, Any]) -> None:
    """15 s at 200 W are alice's and 15 s at 300 W bob's; the edges of 130 and 180 W for 1 s are nobody's."""
    assert of_team(clean, "alice")["energy_joules"] == pytest.approx(15 * 200.0, rel=1e-12)
    assert of_team(clean, "bob")["energy_joules"] == pytest.approx(15 * 300.0, rel=1e-12)
    rest = 4 * 60.0 + 130.0 + 130.0 + 3 * 60.0 + 180.0 + 180.0 + 19 * 60.0
    assert clean["measured_joules"] == pytest.approx(7_500.0 + rest, rel=1e-12)
    assert clean["idle_joules"] == pytest.approx(30 * 50.0, rel=1e-12)
    assert clean["rejected"] == {}


DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"\n"
MANY_KEYS = b"{" + b",".join(b'"k%d":1' % number for number in range(1_000_000)) + b"}\n"
EVENT_CASES: list[tuple[str, bytes, str]] = [
    # B1
    ("not-utf8", line(BAD).replace(b"eve", b"\xff\xfe"), "not_utf8"),
    ("truncated", line(BAD)[:60] + b"\n", "truncated"),
    ("gzip", gzip.compress(line(BAD), mtime=0).replace(b"\n", b"") + b"\n", "not_utf8"),
    ("no-json", b"time,device\n", "not_json"),
    ("list", b"[1, 2]\n", "not_object"),
    ("deep", DEEP, "too_deep"),
    ("million-keys", MANY_KEYS, "too_large"),
    ("megabyte-line", line(BAD | {"prompt": "x" * (1 << 20)}), "too_large"),
    ("nan", line(BAD | {"input_tokens": math.nan}), "not_finite"),
    ("infinity", line(BAD | {"end": math.inf}), "not_finite"),
    ("beyond-float", line(BAD).replace(b'"input_tokens": 1,', b'"input_tokens": 1e999,'), "number_out_of_range"),
    ("huge", line(BAD | {"input_tokens": 1e308}), "tokens_absurd"),
    ("beyond-64-bit", line(BAD | {"input_tokens": 2**63}), "tokens_absurd"),
    ("beyond-128-bit", line(BAD | {"input_tokens": 2**127}), "tokens_absurd"),
    ("lone-surrogate", line(BAD).replace(b"eve", b"\\ud800"), "not_json"),
    # B3
    ("end-before-start", line(BAD | {"start": T + 51.0}), "end_before_start"),
    ("milliseconds", line(BAD | {"start": (T + 45.0) * 1e3, "end": (T + 50.0) * 1e3}), "wrong_time_unit"),
    ("microseconds", line(BAD | {"start": (T + 45.0) * 1e6, "end": (T + 50.0) * 1e6}), "wrong_time_unit"),
    ("nanoseconds", line(BAD | {"start": int(T + 45) * 10**9, "end": int(T + 50) * 10**9}), "wrong_time_unit"),
    ("time-zero", line(BAD | {"start": 0, "end": 0}), "time_out_of_range"),
    ("negative-time", line(BAD | {"start": -5.0}), "time_out_of_range"),
    ("year-2262", line(BAD | {"end": 9_223_372_036.0}), "time_out_of_range"),
    ("no-zone", line(BAD | {"start": "2024-04-02T07:37:05"}), "bad_time"),
    ("no-moment", line(BAD | {"end": "yesterday"}), "bad_time"),
    ("future", line(BAD | {"end": T + 10_000.0, "arrived": T + 50.0}), "future"),
    # B4
    ("negative-tokens", line(BAD | {"output_tokens": -1}), "tokens_negative"),
    ("half-a-token", line(BAD | {"output_tokens": 1.5}), "tokens_fractional"),
    ("tokens-as-text", line(BAD | {"output_tokens": "12"}), "tokens_not_a_number"),
    ("tokens-as-truth", line(BAD | {"output_tokens": True}), "tokens_not_a_number"),
    ("cached-above-input", line(BAD | {"cached_input_tokens": 2}), "cached_exceeds_input"),
    # B5
    ("no-id", line({key: value for key, value in BAD.items() if key != "request_id"}), "missing_request_id"),
    ("empty-id", line(BAD | {"request_id": ""}), "missing_request_id"),
    ("null-id", line(BAD | {"request_id": None}), "missing_request_id"),
    ("long-id", line(BAD | {"request_id": "x" * 1_000_000}), "text_too_long"),
    ("id-is-number", line(BAD | {"request_id": 7}), "wrong_type"),
    # B6
    ("line-end-in-team", line(BAD | {"team": "eve\nteam=alice"}), "control_character"),
    ("nul-in-model", line(BAD | {"model": "m\x00"}), "control_character"),
    ("c1-in-model", line(BAD | {"model": "m\x9b31m"}), "control_character"),
    ("long-team", line(BAD | {"team": "é" * 129}), "text_too_long"),
    ("64-kilobyte-model", line(BAD | {"model": "m" * 65_536}), "text_too_long"),
    ("no-model", line(BAD | {"model": ""}), "missing_model"),
    # B7
    ("unknown-gpu", line(BAD | {"devices": ["g9"]}), "unknown_device"),
    ("gpu-twice", line(BAD | {"devices": ["g0", "g0"]}), "bad_devices"),
    ("other-host", line(BAD | {"host": "h2"}), "unknown_host"),
    # B8, B9, B11
    ("work-of-no-unit", line(BAD | {"work": {"unit": "", "amount": 4}}), "bad_work"),
    ("negative-work", line(BAD | {"work": {"unit": "image", "amount": -4}}), "bad_work"),
    ("65-labels", line(BAD | {"labels": {f"k{number}": "v" for number in range(65)}}), "bad_labels"),
    ("label-is-number", line(BAD | {"labels": {"use_case": 7}}), "bad_labels"),
    ("later-schema", line(BAD | {"schema": "wattribute.request.v2"}), "schema_version"),
    ("other-schema", line(BAD | {"schema": "acme.request.v1"}), "schema_version"),
]


@pytest.mark.parametrize(("bad", "reason"), [case[1:] for case in EVENT_CASES], ids=[case[0] for case in EVENT_CASES])
def test_a_bad_event_costs_only_itself(tmp_path: Path, clean: dict[str, Any], bad: bytes, reason: str) -> None:
    """It is counted under its reason, and the books are those without it, to the digit."""
    assert bad.count(b"\n") == 1
    books = replayed(recording(tmp_path / "r", events=[EVENTS[0], bad, EVENTS[1]]))
    assert books["rejected"] == {reason: 1}
    assert sums(books) == sums(clean)


def test_all_bad_events_at_once(tmp_path: Path, clean: dict[str, Any]) -> None:
    """However many bad lines stand around the good ones, each is counted, on the first run and on a second."""
    lines = [case[1] for case in EVENT_CASES]
    folder = recording(tmp_path / "r", events=[*lines[:20], EVENTS[0], *lines[20:40], EVENTS[1], *lines[40:]])
    for _ in range(2):
        books = replayed(folder, "--data", tmp_path / "data")
        assert books["rejected"] == Counter(case[2] for case in EVENT_CASES)
        assert sums(books) == sums(clean)


ROW_CASES: list[tuple[str, bytes, str]] = [
    ("no-time", b"soon,g0,60.0\n", "bad_time"),
    ("empty-time", b",g0,60.0\n", "bad_time"),
    ("milliseconds", f"{(T + 55.5) * 1e3!r},g0,60.0\n".encode(), "wrong_time_unit"),
    ("nanoseconds", f"{int(T + 55) * 10**9},g0,60.0\n".encode(), "wrong_time_unit"),
    ("time-zero", b"0,g0,60.0\n", "time_out_of_range"),
    ("year-2262", b"9223372036,g0,60.0\n", "time_out_of_range"),
    ("unknown-gpu", row(55.5, 60.0, "g9"), "unknown_device"),
    ("blank", row(55.5, ""), "blank_value"),
    ("unit", row(55.5, "60.0 W"), "not_a_number"),
    ("not-available", row(55.5, "[N/A]"), "not_a_number"),
    ("nan", row(55.5, "nan"), "not_finite"),
    ("infinity", row(55.5, "-inf"), "not_finite"),
    ("negative", row(55.5, -1.0), "negative_value"),
    ("huge", row(55.5, 1e308), "absurd_value"),
    ("beyond-64-bit", row(55.5, 2**64), "absurd_value"),
    ("decimal-comma", row(55.5, "60,5"), "too_many_columns"),
    ("cut", f"{T + 55.5!r},g0\n".encode(), "cut_row"),
    ("open-quote", f'{T + 55.5!r},"g0,60.0\n'.encode(), "bad_quotes"),
    ("not-utf8", b"\xff\xfe,g0,60.0\n", "not_utf8"),
    ("megabyte-line", b"1" * 1_000_000 + b",g0,60.0\n", "too_large"),
    ("conflict", row(55.0, 61.0), "conflict"),
]


@pytest.mark.parametrize(("bad", "reason"), [case[1:] for case in ROW_CASES], ids=[case[0] for case in ROW_CASES])
def test_a_bad_row_costs_only_itself(tmp_path: Path, clean: dict[str, Any], bad: bytes, reason: str) -> None:
    """The samples around it are integrated as if it were not there."""
    books = replayed(recording(tmp_path / "r", rows=[HEADER, *ROWS, bad]))
    assert books["rejected"] == {reason: 1}
    assert sums(books) == sums(clean)


def test_what_is_there_twice_changes_no_digit(tmp_path: Path, clean: dict[str, Any]) -> None:
    """All rows and events again, in other order, an event also half an hour later: the same books, nothing restated."""
    again = line(ALICE | {"arrived": T + 1_900.0})
    events = [*EVENTS, *reversed(EVENTS), again, *EVENTS]
    books = replayed(recording(tmp_path / "r", rows=[HEADER, *ROWS, *reversed(ROWS)], events=events))
    assert books["rejected"] == {}
    assert sums(books) | {"to": clean["to"]} == sums(clean)  # the recording ends later


def test_other_content_under_an_id_is_a_conflict(tmp_path: Path, clean: dict[str, Any]) -> None:
    """The first content counts, each further one is counted as a conflict; another attempt is another request."""
    conflicts = [line(ALICE | {"output_tokens": 41}), line(BOB | {"team": "eve"}), line(BOB | {"end": T + 41.0})]
    books = replayed(recording(tmp_path / "r", events=[*EVENTS, *conflicts]))
    assert books["rejected"] == {"conflict": 3}
    assert sums(books) == sums(clean)
    retried = replayed(recording(tmp_path / "retried", events=[*EVENTS, line(ALICE | {"attempt": 1})]))
    assert retried["rejected"] == {}
    assert of_team(retried, "alice")["requests"] == 2.0
    assert retried["attributed_joules"] == clean["attributed_joules"]


NAMES = [
    "a, b",
    "k=v",
    'say "hi"',
    "it's",
    "back\\",
    "\\n",
    "  spaces  ",
    "\u202egnp.exe",
    "\u05e2\u05d1\u05e8\u05d9\u05ea",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "Мodel",
    "MODEL",
    "model",
    "e\u0301",
    "\u00e9",
    "🔌" * 64,
    "x" * 256,
    "__other__",
    "-",
    "null",
]


def test_strange_names_are_names(tmp_path: Path) -> None:
    """Any printable text of up to 256 bytes is a model, team or id of its own, in the statement and in the CSV."""
    strange = [event(name, 5.0, 20.0, model=name, team=name, output_tokens=1) for name in NAMES]
    requests = tmp_path / "requests.csv"
    books = replayed(recording(tmp_path / "r", events=map(line, strange)), "--requests", requests)
    assert books["rejected"] == {}
    assert Counter((each["model"], each["team"]) for each in books["by"]) == Counter((name, name) for name in NAMES)
    energies = [each["energy_joules"] for each in books["by"]]
    assert energies == pytest.approx([3_000.0 / len(NAMES)] * len(NAMES), rel=1e-9)
    assert len(requests.read_text(encoding="utf-8").splitlines()) == 1 + len(NAMES)


KINDS: list[tuple[str, dict[str, Any], float | None]] = [
    # what differs from a plain event, and the joules that it gets of alice's 3 000 (None: as one that it shares with)
    ("error", {"status": "error"}, None),
    ("cancelled", {"status": "cancelled", "output_tokens": 0}, None),
    ("cache-hit", {"status": "cache_hit", "devices": [], "input_tokens": 9, "output_tokens": 9}, 0.0),
    ("no-time-at-all", {"end": T + 5.0}, 0.0),
    ("embeddings", {"model": "embed", "input_tokens": 512}, None),
    ("images", {"model": "painter", "work": {"unit": "image", "amount": 4}}, None),
    ("untold", {}, None),
    ("null-tokens", {"input_tokens": None, "output_tokens": None}, None),
    ("whole-float", {"output_tokens": 12.0}, None),
    ("no-output", {"output_tokens": 0}, None),
    ("first-token-too-early", {"first_token": T - 100.0}, None),
    ("unknown-keys", {"prompt": "secret", "zzz": [{}] * 50}, None),
    ("many-labels", {"labels": {f"k{number}": "v" for number in range(64)}}, None),
]


@pytest.mark.parametrize(("more", "joules"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS])
def test_every_kind_of_request_counts(
    tmp_path: Path, clean: dict[str, Any], more: dict[str, Any], joules: float | None
) -> None:
    """It is one request of its team, shares alice's energy where it ran on the GPU, and takes nothing of bob's."""
    kind = event("r-kind", 5.0, 20.0, team="kind") | more
    books = replayed(recording(tmp_path / "r", events=[*EVENTS, line(kind)]))
    assert books["rejected"] == {}
    own, alice = of_team(books, "kind"), of_team(books, "alice")
    assert own["requests"] == 1.0
    assert own["energy_joules"] + alice["energy_joules"] == pytest.approx(3_000.0, rel=1e-9)
    assert own["energy_joules"] == (joules if joules is not None else pytest.approx(1_500.0, rel=0.1))
    assert joules_of(books, "bob") == joules_of(clean, "bob")
    assert "secret" not in json.dumps(books)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_files_from_other_systems(tmp_path: Path, clean: dict[str, Any], bom: bytes, line_end: bytes) -> None:
    """A byte order mark, CRLF, blank lines and a last line without an end are no faults."""

    def foreign(lines: Sequence[bytes]) -> list[bytes]:
        changed = [each.replace(b"\n", line_end) for each in lines]
        return [bom, *changed[:2], line_end, *changed[2:-1], changed[-1].removesuffix(line_end)]

    host = bom.decode() + HOST_TOML.replace("\n", line_end.decode())
    folder = recording(tmp_path / "r", rows=foreign([HEADER, *ROWS]), events=foreign(EVENTS), host=host)
    books = replayed(folder)
    assert books["rejected"] == {}
    assert sums(books) == sums(clean)


@pytest.mark.parametrize("events", [None, [], [b"\n\n  \n"]], ids=["no-file", "empty", "blank-lines"])
def test_without_requests_nobody_asked(tmp_path: Path, clean: dict[str, Any], events: list[bytes] | None) -> None:
    """All that was measured is idle or unattributed."""
    books = replayed(recording(tmp_path / "r", events=events))
    assert (books["attributed_joules"], books["by"], books["rejected"]) == (0.0, [], {})
    assert books["measured_joules"] == clean["measured_joules"]


@pytest.mark.parametrize("rows", [[HEADER], [HEADER, ROWS[0]]], ids=["none", "one"])
def test_a_sample_alone_closes_no_interval(tmp_path: Path, rows: list[bytes]) -> None:
    """Requests are counted, their energy is not known."""
    books = replayed(recording(tmp_path / "r", rows=rows))
    assert books["measured_joules"] == 0.0
    assert [(each["team"], each["requests"]) for each in books["by"]] == [("alice", 1.0), ("bob", 1.0)]


@pytest.mark.parametrize("rows", [[], [b"\n"], [b"when,what\n", *ROWS], [b"\x00\xff" * 500]])
def test_a_file_of_no_readings_is_refused_in_words(tmp_path: Path, rows: list[bytes]) -> None:
    """A recording that is unusable as a whole ends with exit code 3 and one line that names the file."""
    result = wattribute("replay", recording(tmp_path / "r", rows=rows), "--json")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "readings.csv" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "host",
    ["", 'host = "h1', 'host = "h1"\n', HOST_TOML.replace("gpu", "gup"), HOST_TOML + "colour = 1\n", "host = 7\n"],
)
def test_a_host_that_is_none_is_refused_in_words(tmp_path: Path, host: str) -> None:
    """So does one whose host.toml is wrong."""
    result = wattribute("replay", recording(tmp_path / "r", host=host), "--json")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "host.toml" in result.stderr


def test_a_counter_that_goes_back_is_named(tmp_path: Path) -> None:
    """The interval of a reset has no joules and a reason; what was counted around it is whole."""
    totals = [*range(1_000, 4_000, 100), *range(50, 3_050, 100)]
    rows = [b"time,device,energy_joules_total\n", *(row(second, total) for second, total in enumerate(totals))]
    books = replayed(recording(tmp_path / "r", rows=rows))
    assert books["rejected"] == {"counter_reset": 1}
    assert books["measured_joules"] == pytest.approx(29 * 100.0 + 29 * 100.0, rel=1e-12)


CONFIGS: list[tuple[str, str, str]] = [
    ("malformed", "[host\n", ":1"),
    ("wrong-type", "[host]\npue = 'much'\n", ":2: host.pue"),
    ("no-unit", "[accounting]\nhorizon = 900\n", ":2: accounting.horizon"),
    ("wrong-unit", "[accounting]\nwindow = '10GiB'\n", ":2: accounting.window"),
    ("unknown-key", "[host]\nnmae = 'x'\n", ":2: host.nmae"),
    ("key-twice", "[host]\nname = 'x'\nname = 'y'\n", ":3"),
    ("no-utf8", "[host]\nname = '\udcff'\n", ""),
]


@pytest.mark.parametrize(("text", "place"), [case[1:] for case in CONFIGS], ids=[case[0] for case in CONFIGS])
def test_a_bad_configuration_is_refused_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    """`check` and `replay` name file, line and key, and end with exit code 2."""
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    folder = recording(tmp_path / "r")
    for result in (wattribute("check", "--config", file), wattribute("replay", folder, "--config", file)):
        assert result.exit_code == 2
        assert f"{file}{place}" in result.stderr
        assert result.stdout == ""


def test_rejected_input_can_be_looked_at(tmp_path: Path) -> None:
    """`rejected` counts by reason and lists the newest with file, line and detail, never the content."""
    bad = [line(BAD | {"end": T}), line(BAD | {"team": "\x1b[2J", "prompt": "secret"}), line(ALICE | {"team": "eve"})]
    data = tmp_path / "data"
    replayed(recording(tmp_path / "r", events=[*EVENTS, *bad]), "--data", data)
    told = json.loads(wattribute("rejected", "--data", data, "--json").stdout)
    assert told["rejected"] == {"conflict": 1, "control_character": 1, "end_before_start": 1}
    places = [(each["reason"], each["source"], each["position"]) for each in reversed(told["entries"])]
    assert places[:2] == [
        ("end_before_start", "r/requests.jsonl", "3"),
        ("control_character", "r/requests.jsonl", "4"),
    ]
    assert [reason for reason, _, _ in places[2:]] == ["conflict"]
    assert all(len(each["sha256"]) == 64 and each["detail"] for each in told["entries"])
    one = wattribute("rejected", "--data", data, "--reason", "end_before_start", "--limit", "5").stdout
    assert "r/requests.jsonl" in one
    assert "another content" not in one
    assert "secret" not in json.dumps(told) + one


def test_nothing_rejected_and_no_log_are_two_answers(tmp_path: Path) -> None:
    """`rejected` says so where nothing was, and ends with exit code 3 where there is no log."""
    data = tmp_path / "data"
    replayed(recording(tmp_path / "r"), "--data", data)
    assert wattribute("rejected", "--data", data).stdout == "nothing was rejected\n"
    absent = wattribute("rejected", "--data", tmp_path / "absent")
    assert (absent.exit_code, absent.stdout) == (3, "")
