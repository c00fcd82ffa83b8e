"""`wattribute check` as a person and a program meet it."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from monitor.cli.check import check


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(check, [str(argument) for argument in arguments])


def test_right_file_says_what_would_run(tmp_path: Path) -> None:
    """A good file is ok, with what would run on standard output and doubts on standard error."""
    file = tmp_path / "config.toml"
    file.write_text(
        "roles = ['ingest', 'aggregate', 'collect']\n"
        "[host]\nname = 'gpu-01'\nzone = 'IN-SO'\npue = 1.25\n"
        "[data]\ndirectory = '/srv/books'\n"
        "[[sources]]\nname = 'gateway'\nkind = 'file'\npath = 'requests.jsonl'\n"
    )
    result = run("--config", file)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"{file}: ok",
        "  roles    ingest, aggregate, collect",
        "  host     gpu-01, PUE 1.25",
        "  zone     IN-SO (country IND)",
        "  data     /srv/books, store sqlite",
        "  sources  gateway (file)",
    ]


def test_doubts_are_warnings(tmp_path: Path) -> None:
    """A missing zone, no sources, an open port and a table that is not read yet are said, and the file is still ok."""
    file = tmp_path / "config.toml"
    (tmp_path / "token").write_text("t")
    file.write_text("[web]\nlisten = '0.0.0.0:80'\n[carbon]\nsource = 'electricity_maps'\ntoken_file = 'token'\n")
    result = run("--config", file)
    assert result.exit_code == 0
    starts = ("host.zone", "there are no [[sources]]", "web.listen", "carbon.source")
    lines = result.stderr.splitlines()
    assert len(lines) == len(starts)
    assert all(line.startswith(f"warning: {start}") for line, start in zip(lines, starts, strict=True))
    assert "emissions will be missing, not zero" in lines[0]


def test_doubts_about_kafka(tmp_path: Path) -> None:
    """A source of topics without brokers, books in a file of one process, a password that all on the way can read."""
    file = tmp_path / "config.toml"
    (tmp_path / "password").write_text("secret")
    topics = "[[sources]]\nname = 'fleet'\nkind = 'kafka'\ntopics = ['llm']\n"
    file.write_text(f"[host]\nzone = 'FR'\n{topics}")
    assert "warning: source fleet reads topics, but kafka.bootstrap_servers is empty" in run("--config", file).stderr
    login = "security = 'sasl_plaintext'\nsasl_mechanism = 'plain'\nuser = 'u'\npassword_file = 'password'\n"
    file.write_text(f"[host]\nzone = 'FR'\n[kafka]\nbootstrap_servers = ['k:9092']\n{login}{topics}")
    own_store, in_the_clear = run("--config", file).stderr.splitlines()
    assert own_store.startswith('warning: store.kind = "sqlite" with Kafka: aggregate and control and web of this')
    clear = 'warning: kafka.security = "sasl_plaintext": the secret crosses the network in the clear'
    assert in_the_clear.startswith(clear)


def test_wrong_file_is_refused_line_by_line(tmp_path: Path) -> None:
    """Each mistake is a line of its own on standard error, and the exit code is 2."""
    file = tmp_path / "config.toml"
    file.write_text("[host]\nzone = 'UK'\n[log]\nmax_size = 10\n")
    result = run("--config", file)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f'{file}:2: host.zone: "UK" is not a grid zone; did you mean "GB"?',
        f'{file}:4: log.max_size: 10 has no unit; write it in quotes with one, as in "10GiB"',
    ]


def test_json_of_a_right_file(tmp_path: Path) -> None:
    """A program reads the same summary, warnings included."""
    file = tmp_path / "config.toml"
    file.write_text("[host]\nname = 'a'\nzone = 'FRA'\n")
    result = run("--config", file, "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["ok"] is True
    assert summary["files"] == [str(file)]
    assert (summary["host"], summary["zone"], summary["iso3"], summary["pue"]) == ("a", "FRA", "FRA", 1.0)
    assert summary["sources"] == []
    assert len(summary["warnings"]) == 1


def test_json_of_a_wrong_file(tmp_path: Path) -> None:
    """A program reads each problem's file, line, key and message; the exit code is 2 here too."""
    file = tmp_path / "config.toml"
    file.write_text("\nroels = []\n")
    result = run("--config", file, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "ok": False,
        "problems": [{"file": str(file), "line": 2, "key": "roels", "message": 'unknown key; did you mean "roles"?'}],
    }
