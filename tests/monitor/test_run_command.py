"""`wattribute run`, `restate` and `demo`, as a person starts them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from daemon_process import free_port

from collectors.collector import Source
from collectors.errors import RetryLater
from collectors.readings import Device, HostProfile
from collectors.recording import Sample, write_recording
from collectors.requests.event import RequestEvent
from collectors.requests.file import EventFile
from collectors.requests.file_part import Line
from monitor.cli.main import cli
from monitor.core import points
from monitor.store.sqlite import SqliteStore

START = 1_767_600_000.0
COMMAND = Path(sys.executable).with_name("wattribute")


def _recording(folder: Path, *, seconds: int = 60) -> Path:
    """100 W at rest, 300 W while a request runs from 20 s to 30 s."""
    profile = HostProfile(host="node-1", zone="FR", pue=1.0, devices=(Device(id="gpu0", kind="gpu", idle_watts=100.0),))
    joules = [0.0]
    for second in range(seconds):
        joules.append(joules[-1] + (300.0 if 20 <= second < 30 else 100.0))
    samples = [Sample(START + second, "gpu0", None, total) for second, total in enumerate(joules)]
    event = RequestEvent(request_id="r1", model="m", team="a", start=START + 20, end=START + 30, output_tokens=5)
    write_recording(folder, profile, samples, [event])
    return folder


def _config(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _energy(data: Path) -> list[points.Row]:
    store = SqliteStore(data / "store.db", read_only=True)
    try:
        return store.read(points.ENERGY, 0.0, 4e9)
    finally:
        store.close()


def _sum(rows: list[points.Row], account: str) -> float:
    return sum(float(row.fields[0] or 0.0) for row in rows if row.tags[3] == account)


def test_run_plays_a_recording_to_its_end(tmp_path: Path) -> None:
    """3 000 J to the team, 50 s x 100 W idle, and the process ends by itself."""
    _recording(tmp_path / "recording")
    config = _config(
        tmp_path,
        f'[data]\ndirectory = "{tmp_path}/data"\n[[sources]]\nname = "r"\nkind = "recording"\n'
        f'path = "{tmp_path}/recording"\nspeed = "max"\n',
    )
    done = subprocess.run([COMMAND, "run", "--config", config], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rows = _energy(tmp_path / "data")
    assert _sum(rows, "attributed") == pytest.approx(3_000.0, rel=1e-9)
    assert _sum(rows, "idle") == pytest.approx(5_000.0, rel=1e-9)
    assert _sum(rows, "unattributed") == pytest.approx(0.0, abs=1e-6)


def test_run_without_a_role_that_does_something_is_wrong_use(tmp_path: Path) -> None:
    """Nothing to do is said, with exit code 2."""
    done = CliRunner().invoke(cli, ["run", "--config", str(_config(tmp_path, 'roles = ["web"]'))])
    assert done.exit_code == 2
    assert "there is nothing to run" in done.output


def _wait_for_place(place: Path, offset: int, process: subprocess.Popen[bytes]) -> None:
    """Until the daemon has kept that it read up to `offset`."""
    for _ in range(400):
        if place.exists() and json.loads(place.read_bytes())["offset"] == offset:
            return
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError(f"{place} never came to {offset}")


def test_run_follows_a_file_and_stops_on_sigterm(tmp_path: Path) -> None:
    """A good line becomes usage, a bad one a dead letter; SIGTERM ends the daemon with 0; nothing is read twice."""
    events = tmp_path / "events.jsonl"
    now = time.time()
    events.write_text(
        json.dumps({"request_id": "r1", "model": "m", "start": now - 2, "end": now - 1}) + "\nnot json\n",
        encoding="utf-8",
    )
    data = tmp_path / "data"
    config = _config(
        tmp_path,
        f'roles = ["ingest", "aggregate", "control"]\n[data]\ndirectory = "{data}"\n[host]\nname = "node-1"\n'
        f'[metrics]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[[sources]]\nname = "gateway"\nkind = "file"\npath = "{events}"\n',
    )
    for attempt in (1, 2):
        if attempt == 2:
            with events.open("a", encoding="utf-8") as more:
                more.write(json.dumps({"request_id": "r2", "model": "m", "start": now - 2, "end": now - 1}) + "\n")
        with subprocess.Popen([COMMAND, "run", "--config", config], stderr=subprocess.DEVNULL) as process:
            _wait_for_place(data / "sources" / "gateway.json", events.stat().st_size, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
    from monitor.log.codec import USAGE_SCHEMA
    from monitor.log.sqlite import SqliteLog

    log = SqliteLog(data / "log.db", read_only=True)
    try:
        usage = [record for record in log.read({}, 100) if record.schema == USAGE_SCHEMA]
        assert len(usage) == 2
        assert log.rejected() == {"not_json": 1}
    finally:
        log.close()


def test_restate_writes_the_windows_again_with_the_mark_as_revision(tmp_path: Path) -> None:
    """An order on a data folder where no daemon runs is carried out at once; the joules stay what they were."""
    data = tmp_path / "data"
    runner = CliRunner()
    recording = str(_recording(tmp_path / "recording"))
    assert runner.invoke(cli, ["replay", recording, "--data", str(data)]).exit_code == 0
    before = _energy(data)
    order = ["--host", "node-1", "--from", "2026-01-05T08:00:20Z", "--to", "2026-01-05T08:00:40Z", "--reason", "audit"]
    done = runner.invoke(cli, ["restate", "--data", str(data), *order])
    assert done.exit_code == 0, done.output
    assert "restated at the mark" in done.output
    after = _energy(data)
    revision = points.ENERGY.fields.index("revision")
    assert {row.time for row in after if row.fields[revision]} == {START + 20, START + 30}
    assert [row.fields[:10] for row in before] == [row.fields[:10] for row in after]
    store = SqliteStore(data / "store.db", read_only=True)
    (record,) = store.read(points.RESTATEMENT, 0.0, 4e9)
    store.close()
    assert record.fields[points.RESTATEMENT.fields.index("reason")] == "audit"


def test_demo_ends_with_a_statement_that_closes(tmp_path: Path) -> None:
    """A short demo, as fast as it goes: the live table without a terminal, then the statement, exit code 0."""
    folder = tmp_path / "demo"
    done = CliRunner().invoke(cli, ["demo", "--folder", str(folder), "--minutes", "2", "--speed", "3600"])
    assert done.exit_code == 0, done.output
    assert "Energy statement" in done.output
    assert "books close" in done.output


def test_an_event_file_is_a_source(tmp_path: Path) -> None:
    """Opened before its file is there it says so, then gives whole lines alone, and begins anew after a rotation."""
    path = tmp_path / "events.jsonl"
    source: Source[Line] = EventFile("gateway", path)
    source.open()
    with pytest.raises(RetryLater, match=r"events\.jsonl"):
        source.read()
    path.write_bytes(b"one\ntw")
    assert [line.raw for line in source.read()] == [b"one"]
    with path.open("ab") as more:
        more.write(b"o\r\n\n")
    assert [line.raw for line in source.read()] == [b"two"]
    path.rename(tmp_path / "events.jsonl.1")
    path.write_bytes(b"three\n")
    assert [line.raw for line in source.read()] == [b"three"]
    path.write_bytes(b"4\n")
    assert [line.raw for line in source.read()] == [b"4"]
    source.close()


def test_a_request_that_ends_with_the_recording_is_counted(tmp_path: Path) -> None:
    """It ends at the first moment of a window that nobody metered: its joules, itself and its tokens are all there."""
    folder = _recording(tmp_path / "recording")
    event = {
        "request_id": "last",
        "model": "m",
        "team": "b",
        "start": START + 55,
        "end": START + 60,
        "output_tokens": 7,
    }
    with (folder / "requests.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(event) + "\n")
    done = CliRunner().invoke(cli, ["replay", str(folder), "--json"])
    (line,) = [line for line in json.loads(done.output)["by"] if line["team"] == "b"]
    assert (line["requests"], line["output_tokens"]) == (1, 7)
    assert line["energy_joules"] == pytest.approx(500.0, rel=1e-9)


@pytest.mark.parametrize(
    ("host", "start", "end", "said"),
    [
        ("node-2", "2026-01-05T08:00:20Z", "2026-01-05T08:00:40Z", "no host 'node-2' in the books; there are: node-1"),
        ("node-1", "2026-01-05T09:00:00Z", "2026-01-05T09:10:00Z", "no final window"),
        ("node-1", "2026-01-05T08:00:40Z", "2026-01-05T08:00:20Z", "--to must be later"),
    ],
)
def test_an_order_for_nothing_is_refused(tmp_path: Path, host: str, start: str, end: str, said: str) -> None:
    """Wrong hosts and empty times leave no mark in the books."""
    data, runner = tmp_path / "data", CliRunner()
    assert runner.invoke(cli, ["replay", str(_recording(tmp_path / "recording")), "--data", str(data)]).exit_code == 0
    order = ["--host", host, "--from", start, "--to", end, "--reason", "audit"]
    done = runner.invoke(cli, ["restate", "--data", str(data), *order])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not (data / "orders").exists()


def test_demo_leaves_other_peoples_folders_alone(tmp_path: Path) -> None:
    """A folder without a demo's mark is refused, and what is in it stays."""
    (tmp_path / "data").mkdir()
    kept = tmp_path / "data" / "thesis.txt"
    kept.write_text("years of work", encoding="utf-8")
    done = CliRunner().invoke(cli, ["demo", "--folder", str(tmp_path), "--minutes", "1"])
    assert done.exit_code == 2
    assert kept.read_text(encoding="utf-8") == "years of work"


def test_a_path_that_cannot_be_used_is_one_line_and_code_3(tmp_path: Path) -> None:
    """Not a traceback, and known before the replay begins."""
    folder = _recording(tmp_path / "recording")
    done = CliRunner().invoke(cli, ["replay", str(folder), "--requests", str(tmp_path / "nowhere" / "x.csv")])
    assert done.exit_code == 3
    assert "nowhere" in done.output
    assert "Traceback" not in done.output


def test_meters_that_disagree_close_with_their_disagreement(tmp_path: Path) -> None:
    """A GPU that tells 300 W in a node of 250 W for 20 s: 1 000 J more than the node's 5 000 J, said and not hidden."""
    profile = HostProfile(
        host="node-1",
        devices=(
            Device(id="node", kind="node", idle_watts=50.0),
            Device(id="gpu0", kind="gpu", idle_watts=100.0, parent="node"),
        ),
    )
    samples = [Sample(START + s, "gpu0", 300.0) for s in range(21)] + [
        Sample(START + s, "node", 250.0) for s in range(21)
    ]
    write_recording(tmp_path / "recording", profile, samples, [])
    done = CliRunner().invoke(cli, ["replay", str(tmp_path / "recording"), "--json"])
    told = json.loads(done.stdout)
    assert told["measured_joules"] == pytest.approx(5_000.0)
    assert told["meter_disagreement_joules"] == pytest.approx(1_000.0)
    assert told["idle_joules"] + told["unattributed_joules"] == pytest.approx(6_000.0)
    assert told["worst_imbalance"] <= 1e-9
    assert "meters disagree" in CliRunner().invoke(cli, ["replay", str(tmp_path / "recording")]).stdout


def test_a_deployments_team_pays_for_its_devices_idle(tmp_path: Path) -> None:
    """[[deployments]] team_owner reaches `report --share-idle owner`: 5 000 J of idle are the platform's."""
    data, runner = tmp_path / "data", CliRunner()
    assert runner.invoke(cli, ["replay", str(_recording(tmp_path / "recording")), "--data", str(data)]).exit_code == 0
    config = _config(
        tmp_path,
        '[[deployments]]\nname = "chat"\nmodel = "m"\nhosts = ["node-1"]\ndevices = ["gpu0"]\n'
        'team_owner = "platform"\n',
    )
    asked = ["--from", "2026-01-05", "--to", "2026-01-06", "--by", "team", "--share-idle", "owner", "--format", "json"]
    done = runner.invoke(cli, ["report", "--data", str(data), "--config", str(config), *asked])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in json.loads(done.stdout)["lines"] if line["team"] == "platform"]
    assert line["idle_share_joules"] == pytest.approx(5_000.0, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--roles", "agregate"], '--roles: "agregate" is no role'),
        (["--roles", "web"], "there is nothing to run"),
        (["--metrics", "everywhere"], "--metrics: "),
    ],
)
def test_run_says_what_is_wrong_with_its_options(tmp_path: Path, options: list[str], said: str) -> None:
    """Roles and address of the command line are checked as those of the file are."""
    done = CliRunner().invoke(cli, ["run", "--config", str(_config(tmp_path, "")), *options])
    assert (done.exit_code, said in done.output) == (2, True), done.output
