"""The recording folder as text: the same content gives the same bytes. Floats are written to round-trip exactly."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from collectors.simulate.scenario import Model, Scenario

HOST_FILE = "host.toml"
READINGS_FILE = "readings.csv"
REQUESTS_FILE = "requests.jsonl"
ENGINE_FILE = "engine.csv"
ORACLE_FILE = "oracle.csv"
TRUTH_FILE = "truth.csv"

READINGS_HEADER = ("time", "device", "power_watts", "energy_joules_total")
ENGINE_HEADER = (
    "time",
    "server",
    "model",
    "devices",
    "running",
    "waiting",
    "steps_total",
    "prefill_tokens_total",
    "cached_tokens_total",
    "decode_tokens_total",
    "kv_tokens",
)
ORACLE_HEADER = ("request_id", "model", "team", "energy_joules")
TRUTH_HEADER = ("device", "idle_joules", "busy_joules", "unreported_joules", "total_joules")

Value = str | float | tuple[str, ...]


def write_host(folder: Path, scenario: Scenario) -> None:
    """host.toml: the host's facts, its devices, and its models with the boards of their servers."""
    lines = _toml_pairs({"host": scenario.host, "zone": scenario.zone, "pue": scenario.pue})
    for gpu in scenario.gpus:
        facts: dict[str, Value] = {"id": gpu.id, "kind": "gpu", "hardware": gpu.hardware.name}
        lines += ["", "[[devices]]", *_toml_pairs(facts | {"idle_watts": gpu.hardware.idle_watts})]
    stated = scenario.reporting.stated_parameters_ratio
    boards: dict[Model, tuple[str, ...]] = {}
    for server in scenario.servers:
        boards[server.model] = tuple(dict.fromkeys((*boards.get(server.model, ()), *server.devices)))
    for served, devices in boards.items():
        model: dict[str, Value] = {
            "name": served.name,
            "parameters": stated * served.parameters,
            "active_parameters": stated * served.active_parameters,
            "bytes_per_parameter": served.bytes_per_parameter,
            "kv_bytes_per_token": served.kv_bytes_per_token,
            "devices": devices,
        }
        lines += ["", "[[models]]", *_toml_pairs(model)]
    (folder / HOST_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_requests(folder: Path, events: Iterable[dict[str, object]]) -> None:
    """requests.jsonl: one event per line, keys in the order given."""
    with (folder / REQUESTS_FILE).open("w", encoding="utf-8", newline="\n") as file:
        for event in events:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> None:
    """A CSV; None is an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(value)


def _toml_pairs(pairs: dict[str, Value]) -> list[str]:
    """JSON's strings and lists of strings are TOML's too, and so is a float's repr."""
    return [f"{key} = {_toml_value(value)}" for key, value in pairs.items()]


def _toml_value(value: Value) -> str:
    return repr(float(value)) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)
