"""What `wattribute doctor` says of a fleet's brokers and store, on the real ones: before their setup, and behind it."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from servers.influxd import InfluxServer
from servers.kafka import KafkaServer
from servers.server_process import server_port

from monitor.cli.main import cli

NAMES = ("readings", "usage", "facts", "requests", "request_energy", "dead_letters")


def configured(folder: Path, role: str, bootstrap: str, influxd: InfluxServer, *, days: int = 35) -> Path:
    """A process of one role, whose topics and buckets have names of their own."""
    names = "".join(f'{name} = "{folder.name}.{name}"\n' for name in NAMES)
    file = folder / "config.toml"
    file.write_text(
        f'roles = ["{role}"]\n[data]\ndirectory = "{folder}"\n'
        "[collect.nvml]\nenabled = false\n[collect.rapl]\nenabled = false\n[collect.processes]\nenabled = false\n"
        f'[kafka]\nbootstrap_servers = ["{bootstrap}"]\n[kafka.topics]\npartitions = 2\nreplication = 1\n{names}'
        f'[store]\nkind = "influxdb"\nwindows_retention = "{days}d"\n[influxdb]\nurl = "{influxd.url}"\n'
        f'org = "{influxd.settings("").org}"\nbucket = "{folder.name}"\ntoken_file = "{influxd.token_file}"\n'
    )
    return file


def found(file: Path) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit code, and the findings by part, of `doctor --json`."""
    result = CliRunner().invoke(cli, ["doctor", "--json", "--config", str(file)])
    parts: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(result.stdout)["findings"]:
        parts.setdefault(each["part"], []).append(each)
    return result.exit_code, parts


def told(findings: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(each["subject"], each["state"], each["mend"]) for each in findings]


def run(*words: str | Path) -> int:
    return CliRunner().invoke(cli, [str(word) for word in words]).exit_code


def test_topics_and_buckets_are_missing_then_there(kafka: KafkaServer, influxd: InfluxServer, tmp_path: Path) -> None:
    """Six topics and four buckets are missing and each names its command; once made, all is well; a retention that
    differs later is a warning, for points are still written."""
    file = configured(tmp_path, "aggregate", kafka.bootstrap, influxd)
    code, parts = found(file)
    assert code == 1
    brokers, *topics = told(parts["Kafka"])
    assert brokers == ("brokers", "ok", "")
    assert topics == [(f"{tmp_path.name}.{name}", "broken", "make it with: wattribute topics create") for name in NAMES]
    server, *buckets = told(parts["InfluxDB"])
    assert server == ("server", "ok", "")
    assert buckets == [
        (f"bucket {tmp_path.name}{part}", "broken", "wattribute store setup")
        for part in ("", "_hours", "_days", "_provisional")
    ]
    assert run("topics", "create", "--config", file) == run("store", "setup", "--config", file) == 0
    code, parts = found(file)
    assert code == 0
    assert told(parts["Kafka"]) == [("brokers", "ok", ""), ("topics", "ok", "")]
    assert told(parts["InfluxDB"]) == [("server", "ok", ""), ("buckets", "ok", "")]
    code, parts = found(configured(tmp_path, "aggregate", kafka.bootstrap, influxd, days=40))
    assert code == 0
    assert told(parts["InfluxDB"])[1:] == [(f"bucket {tmp_path.name}", "warning", "wattribute store setup")]


def test_a_collector_is_asked_for_its_own_topics_alone(
    kafka: KafkaServer, influxd: InfluxServer, tmp_path: Path
) -> None:
    """It writes readings and facts, and never speaks to the store."""
    code, parts = found(configured(tmp_path, "collect", kafka.bootstrap, influxd))
    assert code == 1
    assert [subject for subject, _, _ in told(parts["Kafka"])] == [
        "brokers",
        f"{tmp_path.name}.readings",
        f"{tmp_path.name}.facts",
    ]
    assert "InfluxDB" not in parts


def test_brokers_that_are_not_there_are_named(influxd: InfluxServer, tmp_path: Path) -> None:
    """As broken, with the address; standard output is JSON all the same."""
    address = f"127.0.0.1:{server_port()}"
    code, parts = found(configured(tmp_path, "ingest", address, influxd))
    assert code == 1
    [brokers] = parts["Kafka"]
    assert (brokers["subject"], brokers["state"]) == ("brokers", "broken")
    assert address in brokers["what"]
    assert "check bootstrap_servers" in brokers["what"]
