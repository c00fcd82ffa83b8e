"""`wattribute doctor`: what of this host can be metered, what it needs is reached or not and why, and what mends it.

Each part of the host is asked by the module that meters it; `host_findings` looks at what they all stand on. It only
looks: nothing is changed, no root is needed, and what it says holds for the user who runs it.
"""

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

if TYPE_CHECKING:
    from collectors.meter import Finding
    from monitor.config.host_sections import BmcMeter, Collect
    from monitor.config.sections import Config

EXIT_BROKEN: Final = 1
WIDTH: Final = 80
_MARK_WIDTH: Final = 11
METERED: Final = ("GPU", "CPU", "node")
NO_DEVICE: Final = ("driver", "boot id")
ATTENTION: Final = ("broken", "warning")

Part = tuple[str, "Sequence[Finding]"]


@click.command()
@click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration of the daemon. [default: /etc/wattribute/config.toml, or the built-in defaults]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on standard output.")
def doctor(path: Path | None, as_json: bool) -> None:
    """Say what of this host can be metered, what cannot, and what mends it; of a fleet, topics and buckets too.

    Looks only: it changes nothing and needs no root. What it says holds for the user who runs it, so ask as the
    daemon's user: sudo -u wattribute wattribute doctor.

    Exit codes: 0 all is well, or what is missing is optional; 1 something that is enabled is broken; 2 the
    configuration is wrong.
    """
    from monitor.config.load import load_config

    parts = list(examined(load_config(path, environ=os.environ)))
    click.echo(_as_json(parts) if as_json else _as_text(parts), nl=as_json)
    sys.exit(EXIT_BROKEN if _count(parts, ("broken",)) else 0)


def examined(config: "Config") -> Iterator[Part]:
    """The findings, part by part, in the order in which they are shown."""
    from monitor.cli.host_findings import clock, data_folder, event_files, ports, user

    if "collect" in config.roles:
        yield "GPU", _gpu(config.collect)
        yield "CPU", _cpu(config.collect)
        yield "node", _node(config.collect.bmc)
        yield "processes", _processes(config.collect)
        yield "engines", _engines(config)
        if config.collect.engine.enabled and config.collect.engine.discover:
            from monitor.cli.model_findings import models

            if found := models(config):
                yield "models", found
    yield "clock", clock()
    yield "data", data_folder(config.data.directory)
    yield "ports", ports(config)
    if "ingest" in config.roles and (files := event_files(config)):
        yield "files", files
    if config.kafka.bootstrap_servers:
        from monitor.cli.fleet_findings import topics
        from monitor.cli.logging import configure

        configure(config.logging.level, config.logging.format)  # the client tells its tries, and stdout is for findings
        yield "Kafka", topics(config)
    if config.store.kind == "influxdb" and set(config.roles) != {"collect"}:
        from monitor.cli.fleet_findings import buckets

        yield "InfluxDB", buckets(config)
    yield "user", user()


def _gpu(collect: "Collect") -> "Sequence[Finding]":
    if collect.dcgm.enabled:
        from collectors.dcgm import diagnose as diagnose_dcgm

        return diagnose_dcgm(collect.dcgm.url)
    if collect.nvml.enabled:
        from collectors.nvml_doctor import diagnose as diagnose_nvml

        return diagnose_nvml(procfs=collect.procfs)
    return [_off("GPUs", "collect.nvml")]


def _cpu(collect: "Collect") -> "Sequence[Finding]":
    """RAPL; where none of it can be read, the model that takes its place."""
    from collectors.cpu_model import diagnose as diagnose_model
    from collectors.rapl import diagnose as diagnose_rapl

    found: list[Finding] = []
    if collect.rapl.enabled:
        found += diagnose_rapl(sysfs=collect.sysfs, procfs=collect.procfs)
    if collect.cpu_model.enabled and not any(each.state in ("ok", "warning") for each in found):
        found += diagnose_model(procfs=collect.procfs, tdp_watts=collect.cpu_model.tdp_watts)
    return found or [_off("CPUs", "collect.rapl")]


def _node(section: "BmcMeter") -> "Sequence[Finding]":
    from collectors.bmc import NodePower, diagnose
    from collectors.ipmi import IpmiPower
    from collectors.redfish import RedfishPower

    if not section.enabled:
        return [_off("node", "collect.bmc")]
    source: NodePower = IpmiPower()
    if section.protocol == "redfish" and section.password_file is not None:
        source = RedfishPower(
            section.url, user=section.user, password_file=section.password_file, ca_file=section.ca_file
        )
    return diagnose(source)


def _processes(collect: "Collect") -> "Sequence[Finding]":
    if not collect.processes.enabled:
        return [_off("processes", "collect.processes")]
    from collectors.processes import diagnose

    return diagnose(procfs=collect.procfs, patterns=collect.processes.servers)


def _engines(config: "Config") -> "Sequence[Finding]":
    """The model servers' counters; their GPUs are not looked for here."""
    if not config.collect.engine.enabled:
        return [_off("servers", "collect.engine")]
    from collectors.engine import diagnose
    from monitor.roles.meters import engine_targets, servers_of

    return diagnose(engine_targets(config, servers_of(config)).now())


def _off(subject: str, table: str) -> "Finding":
    from collectors.meter import Finding

    mend = f"to meter it: enabled = true under [{table}]"
    return Finding(area=table, subject=subject, state="missing", what="not metered: switched off", mend=mend)


def _metered(parts: Sequence[Part]) -> int:
    """The devices of which nothing says that they cannot be read; one may have several findings."""
    told = [each for title, found in parts if title in METERED for each in found if each.subject not in NO_DEVICE]
    can = {each.subject for each in told if each.state in ("ok", "warning")}
    return len(can - {each.subject for each in told if each.state == "broken"})


def _count(parts: Sequence[Part], states: Sequence[str]) -> int:
    return sum(each.state in states for _, found in parts for each in found)


def _as_json(parts: Sequence[Part]) -> str:
    findings = [{"part": title, **msgspec.to_builtins(each)} for title, found in parts for each in found]
    counts = {"metered": _metered(parts), "need_attention": _count(parts, ATTENTION)}
    return json.dumps({"ok": not _count(parts, ("broken",)), **counts, "findings": findings}, indent=2)


def _as_text(parts: Sequence[Part]) -> str:
    """80 columns, on a terminal and in a pipe alike; a command is never broken into lines, so it can be copied."""
    lines: list[str] = []
    for title, found in parts:
        lines.append(title)
        for each in found:
            lines += _lines(each)
    metered = f"{_metered(parts)} can be metered, " if any(title in METERED for title, _ in parts) else ""
    attention = _count(parts, ATTENTION)
    lines += ["", f"{metered}{attention} {'needs' if attention == 1 else 'need'} attention"]
    return "\n".join(lines) + "\n"


def _lines(finding: "Finding") -> list[str]:
    from monitor.reports.layout import printable

    indent = " " * _MARK_WIDTH
    lines = textwrap.wrap(
        printable(f"{finding.subject}: {finding.what}"),
        WIDTH,
        initial_indent=f"  {finding.state:<{_MARK_WIDTH - 2}}",
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return lines + ([f"{indent}-> {printable(finding.mend)}"] if finding.mend else [])
