"""`wattribute doctor` as a person and a program meet it, on hosts made of real files, servers and programs."""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from http_pages import Pages, served_pages

from monitor.cli.doctor import doctor
from monitor.cli.host_findings import clock, data_folder, event_files, kernel_synchronised, ports, user
from monitor.config.load import load_config

UUID = "GPU-c2f76b33-7953-256e-8f33-1343419b1a1c"
BLANK = "9223372036854775792"


def row(name: str, value: object, uuid: str = UUID) -> str:
    return f'DCGM_FI_DEV_{name}{{gpu="0",UUID="{uuid}",modelName="NVIDIA L4"}} {value}\n'


@pytest.fixture
def exporter() -> Iterator[Pages]:
    with served_pages() as pages:
        pages.show("/metrics", row("TOTAL_ENERGY_CONSUMPTION", 4_742_776))
        yield pages


@pytest.fixture
def free_port() -> int:
    return port_of_nobody()


def port_of_nobody() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
        return port


def configured(tmp_path: Path, gpu: str, *more: str, metrics_port: int) -> Path:
    """A host of which only what is named is metered."""
    (tmp_path / "data").mkdir(exist_ok=True)
    file = tmp_path / "config.toml"
    lines = [
        f"[data]\ndirectory = '{tmp_path / 'data'}'",
        f"[web]\nlisten = '127.0.0.1:{port_of_nobody()}'\n[metrics]\nlisten = '127.0.0.1:{metrics_port}'",
        "[collect.nvml]\nenabled = false\n[collect.rapl]\nenabled = false\n[collect.processes]\nenabled = false",
        gpu,
        *more,
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def dcgm(pages: Pages) -> str:
    return f"[collect.dcgm]\nenabled = true\nurl = '{pages.url}/metrics'"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(doctor, [str(argument) for argument in arguments])


def found(result: Result, part: str) -> Sequence[dict[str, Any]]:
    return [each for each in json.loads(result.stdout)["findings"] if each["part"] == part]


def test_a_host_that_can_be_metered_is_well(tmp_path: Path, exporter: Pages, free_port: int) -> None:
    """Part by part, and one line at the end; the whole fits 80 columns."""
    result = run("--config", configured(tmp_path, dcgm(exporter), metrics_port=free_port))
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[:3] == ["GPU", f"  ok       {UUID}: NVIDIA L4, by", "           dcgm-exporter: energy counter"]
    assert [line for line in lines if line and not line.startswith(" ")][:-1] == [
        "GPU",
        "CPU",
        "node",
        "processes",
        "engines",
        "clock",
        "data",
        "ports",
        "user",
    ]
    assert lines[-1].startswith("2 can be metered, ")
    assert all(len(line) <= 80 for line in lines if "->" not in line and str(tmp_path) not in line)


def test_what_is_enabled_and_broken_is_told_with_its_mending_and_exit_code_1(tmp_path: Path, free_port: int) -> None:
    """An exporter that does not answer: the address, the command, and a failure for scripts."""
    with served_pages() as pages:
        file = configured(tmp_path, dcgm(pages), metrics_port=free_port)
    result = run("--config", file)
    assert result.exit_code == 1
    assert "  broken   dcgm: " in result.stdout
    assert "           -> systemctl start nvidia-dcgm-exporter" in result.stdout


def test_a_board_that_tells_nothing_is_broken_beside_one_that_does(
    tmp_path: Path, exporter: Pages, free_port: int
) -> None:
    """Each device has its own line; JSON says the same for programs."""
    none = row("POWER_USAGE", BLANK, uuid="GPU-none")
    exporter.show("/metrics", row("TOTAL_ENERGY_CONSUMPTION", 1_000) + none)
    result = run("--json", "--config", configured(tmp_path, dcgm(exporter), metrics_port=free_port))
    assert result.exit_code == 1
    assert [(each["subject"], each["state"]) for each in found(result, "GPU")] == [(UUID, "ok"), ("GPU-none", "broken")]
    assert json.loads(result.stdout)["ok"] is False
    assert json.loads(result.stdout)["metered"] == 2


def test_what_is_switched_off_is_missing_and_no_fault(tmp_path: Path, free_port: int) -> None:
    """Optional parts are named with what would switch them on."""
    result = run("--json", "--config", configured(tmp_path, "", metrics_port=free_port))
    assert result.exit_code == 0
    (node,) = found(result, "node")
    assert (node["state"], node["mend"]) == ("missing", "to meter it: enabled = true under [collect.bmc]")


def test_a_process_that_does_not_collect_is_not_asked_for_meters(tmp_path: Path, free_port: int) -> None:
    """An aggregator has no GPUs."""
    file = configured(tmp_path, "", metrics_port=free_port)
    file.write_text("roles = ['aggregate', 'web']\n" + file.read_text())
    result = run("--json", "--config", file)
    assert {each["part"] for each in json.loads(result.stdout)["findings"]} == {"clock", "data", "ports", "user"}


def test_nothing_is_changed(tmp_path: Path, exporter: Pages, free_port: int) -> None:
    """A data folder that is not there is not made."""
    file = configured(tmp_path, dcgm(exporter), metrics_port=free_port)
    (tmp_path / "data").rmdir()
    before = sorted(tmp_path.rglob("*"))
    assert run("--config", file).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_port_that_another_program_has_is_broken(tmp_path: Path, exporter: Pages) -> None:
    """The exporter answers there, and is no daemon of ours."""
    port = int(exporter.url.rpartition(":")[2])
    file = configured(tmp_path, dcgm(exporter), metrics_port=port)
    result = run("--json", "--config", file)
    taken = [each for each in found(result, "ports") if each["state"] == "broken"]
    assert [each["subject"] for each in taken] == ["[metrics] listen"]
    assert f"ss -ltnp 'sport = :{port}'" in taken[0]["mend"]


def test_a_port_that_the_daemon_itself_has_is_as_it_should_be(tmp_path: Path, exporter: Pages) -> None:
    """Known by its own account of itself."""
    exporter.show("/status", '{"pid": 1, "roles": []}')
    port = int(exporter.url.rpartition(":")[2])
    config = load_config(configured(tmp_path, "", metrics_port=port), environ=os.environ)
    states = {each.subject: (each.state, each.what) for each in ports(config)}
    assert states["[metrics] listen"] == ("ok", f"127.0.0.1:{port} is in use by the daemon, which runs")
    assert states["[web] listen"][0] == "ok"


def test_a_data_folder_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    """A file in its place; a folder of its own that can still be made; one that may be written."""
    file = tmp_path / "file"
    file.touch()
    assert [each.state for each in data_folder(file)] == ["broken"]
    (made,) = data_folder(tmp_path / "a" / "b")
    assert (made.state, made.what.split(",", maxsplit=1)[0]) == ("ok", "can be made")
    assert data_folder(tmp_path)[0].what.startswith("writable, ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_of_another_user_is_broken(tmp_path: Path) -> None:
    """The command that gives it to the daemon's user stands beside it."""
    tmp_path.chmod(0o555)
    (finding,) = data_folder(tmp_path)
    assert finding.state == "broken"
    assert finding.mend.startswith("chown -R ")


def test_the_clock_is_right_where_somebody_keeps_it(tmp_path: Path) -> None:
    """timesyncd leaves a file; without it the kernel is asked, and that must not fail."""
    (tmp_path / "systemd/timesync").mkdir(parents=True)
    (tmp_path / "systemd/timesync/synchronized").touch()
    assert clock(tmp_path)[0].state == "ok"
    (alone,) = clock(tmp_path / "nowhere")
    assert (alone.state == "ok") == kernel_synchronised()
    assert alone.state == "ok" or alone.mend == "timedatectl set-ntp true"


def test_files_of_events_are_looked_at(tmp_path: Path) -> None:
    """One that may not be there yet is missing, one that can be read is fine."""
    (tmp_path / "there.jsonl").write_text("")
    file = tmp_path / "config.toml"
    entries = [
        f'[[sources]]\nname = "{n}"\nkind = "file"\npath = "{tmp_path}/{n}.jsonl"\n' for n in ("there", "absent")
    ]
    file.write_text("".join(entries))
    found = event_files(load_config(file, environ={}))
    assert [(each.subject, each.state) for each in found] == [("source there", "ok"), ("source absent", "missing")]


def test_root_is_told_to_ask_as_the_daemon(tmp_path: Path) -> None:
    """What root may read says nothing of what the daemon may."""
    (finding,) = user()
    assert finding.state == ("warning" if os.geteuid() == 0 else "ok")


def test_names_from_outside_do_not_reach_the_terminal_raw(tmp_path: Path, exporter: Pages, free_port: int) -> None:
    """An exporter's label with an escape sequence is shown, not obeyed."""
    page = row("TOTAL_ENERGY_CONSUMPTION", 1_000).replace("NVIDIA L4", "\x1b[2Jevil")
    exporter.show("/metrics", page)
    result = run("--config", configured(tmp_path, dcgm(exporter), metrics_port=free_port))
    assert "\x1b" not in result.stdout
    assert "\\x1b[2Jevil" in result.stdout


def test_a_wrong_configuration_is_the_configuration_s_error(tmp_path: Path) -> None:
    """Told by the command line's own clause for it, with file and line."""
    file = tmp_path / "config.toml"
    file.write_text("[collect.dcgm]\nenable = true\n")
    assert type(run("--config", file).exception).__name__ == "ConfigError"
