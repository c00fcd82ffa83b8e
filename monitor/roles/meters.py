"""Which meters this host is read by. In: configuration. Out: meters, not opened; only those asked for are imported."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from collectors.boot_id import boot_id
from collectors.clock import Clock
from collectors.first_of import FirstOf
from collectors.meter import Meter
from collectors.servers import KnownServers
from monitor.config.host_sections import BmcMeter as BmcSection
from monitor.config.host_sections import EngineServer
from monitor.config.sections import Config
from monitor.roles.servers_found import on_devices_of

if TYPE_CHECKING:
    from collectors.engine_targets import EngineTargets


def servers_of(config: Config) -> KnownServers:
    """The model servers of this host; one for all who ask for them, as each look reads every process."""
    return KnownServers(patterns=config.collect.processes.servers, procfs=config.collect.procfs)


def meters_of(config: Config, clock: Clock, servers: KnownServers | None = None) -> list[Meter]:
    """One for each table of [collect] that is enabled; RAPL and the CPU model are one, the first that works."""
    collect = config.collect
    servers = servers or servers_of(config)
    meters = [*_gpu_meters(config, clock, servers)]
    cpu = _cpu_meter(config, clock)
    if cpu is not None:
        meters.append(cpu)
    if collect.bmc.enabled:
        meters.append(bmc_meter(collect.bmc, clock))
    if collect.processes.enabled:
        from collectors.processes import ProcessMeter

        def cpu_devices() -> list[str]:
            return [] if cpu is None else [device.id for device in cpu.devices if device.kind == "cpu"]

        meters.append(
            ProcessMeter(
                procfs=collect.procfs,
                interval_seconds=collect.processes.interval_seconds,
                clock=clock,
                servers=servers,
                cpu_devices=cpu_devices,
            )
        )
    if collect.engine.enabled:
        from collectors.engine import EngineMeter

        engine = EngineMeter(
            engine_targets(config, servers, meters).now, interval_seconds=collect.engine.interval_seconds, clock=clock
        )
        meters.append(engine)
    return meters


def engine_targets(config: Config, servers: KnownServers, meters: Sequence[Meter] = ()) -> "EngineTargets":
    """Which model servers are asked for their counters; `meters` tell who is on which GPU."""
    from collectors.engine_targets import EngineTarget, EngineTargets

    section = config.collect.engine
    told = [EngineServer(url=url) for url in section.urls]
    configured = [
        EngineTarget(
            name=each.name or urlsplit(each.url).netloc,
            url=each.url if urlsplit(each.url).path.strip("/") else f"{each.url.rstrip('/')}/metrics",
            model=each.model,
            devices=each.devices,
        )
        for each in (*told, *section.servers)
    ]
    return EngineTargets(
        configured,
        servers=servers if section.discover else None,
        on_devices=on_devices_of(meters),
        procfs=config.collect.procfs,
    )


def _gpu_meters(config: Config, clock: Clock, servers: KnownServers) -> Sequence[Meter]:
    collect = config.collect
    if collect.dcgm.enabled:
        from collectors.dcgm import DcgmMeter

        section, life = collect.dcgm, boot_id(collect.procfs)
        return [DcgmMeter(section.url, interval_seconds=section.interval_seconds, clock=clock, boot_id=life)]
    if collect.nvml.enabled:
        from collectors.nvml_process import NvmlMeter

        return [
            NvmlMeter(
                procfs=collect.procfs,
                interval_seconds=collect.nvml.interval_seconds,
                clock=clock,
                is_server=servers.is_server,
            )
        ]
    return []


def _cpu_meter(config: Config, clock: Clock) -> Meter | None:
    collect = config.collect
    meters: list[Meter] = []
    if collect.rapl.enabled:
        from collectors.rapl import RaplMeter

        meters.append(
            RaplMeter(
                sysfs=collect.sysfs,
                procfs=collect.procfs,
                interval_seconds=max(collect.rapl.interval_seconds, 1.0),
                clock=clock,
            )
        )
    if collect.cpu_model.enabled:
        from collectors.cpu_model import CpuModelMeter

        meters.append(
            CpuModelMeter(
                procfs=collect.procfs,
                interval_seconds=collect.cpu_model.interval_seconds,
                tdp_watts=collect.cpu_model.tdp_watts,
                clock=clock,
            )
        )
    return FirstOf(meters) if len(meters) > 1 else next(iter(meters), None)


def bmc_meter(section: BmcSection, clock: Clock) -> Meter:
    """The node's meter by the protocol that is configured."""
    from collectors.bmc import BmcMeter, NodePower

    source: NodePower
    if section.protocol == "redfish":
        from collectors.redfish import RedfishPower

        assert section.password_file is not None, "checked with the configuration"
        source = RedfishPower(
            section.url, user=section.user, password_file=section.password_file, ca_file=section.ca_file
        )
    else:
        from collectors.ipmi import IpmiPower

        source = IpmiPower()
    return BmcMeter(source, interval_seconds=section.interval_seconds, clock=clock)
