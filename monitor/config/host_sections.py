"""[host], [data], [collect] and [logging]: the machine, and how it is metered. Read by every role or by collect."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from monitor.config.problems import KeyPath
from monitor.config.section import (
    Duration,
    LocalPath,
    Name,
    NotNegative,
    OptionalName,
    OptionalPath,
    Positive,
    SecretFile,
    Section,
    Url,
    Zone,
)


class Data(Section, frozen=True, kw_only=True):
    """Where the embedded log and store live, and what a role keeps beside them."""

    directory: LocalPath = Path("/var/lib/wattribute")


class HostDevice(Section, frozen=True, kw_only=True):
    """What the operator knows better than the meter; None leaves a fact as it was found."""

    identity = "id"

    id: Name
    idle_watts: NotNegative | None = None
    hardware: Name | None = None
    parent: Name | None = None

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.parent == self.id:
            yield ("parent",), "a meter cannot contain itself; name the meter that contains this one"


class Host(Section, frozen=True, kw_only=True):
    """The host's own facts. `name` "" is the machine's name; `zone` "" is unknown, and then so are its emissions."""

    name: OptionalName = ""
    zone: Zone = ""
    site: OptionalName = ""
    pue: Annotated[float, Meta(ge=1)] = 1.0
    devices: tuple[HostDevice, ...] = ()


class Meter(Section, frozen=True, kw_only=True):
    """A meter that is used where the host has it."""

    enabled: bool = True
    interval_seconds: Duration = 1.0


class CpuModel(Section, frozen=True, kw_only=True):
    """CPU power modelled from utilisation. `tdp_watts` None: by the model's name, else by the number of its cores."""

    enabled: bool = True
    interval_seconds: Duration = 1.0
    tdp_watts: Positive | None = None


class Processes(Section, frozen=True, kw_only=True):
    """Which processes use the hardware: model servers, and all others. `servers` are patterns of command lines."""

    enabled: bool = True
    interval_seconds: Duration = 10.0
    servers: tuple[Name, ...] = ()


class DcgmMeter(Section, frozen=True, kw_only=True):
    """An existing dcgm-exporter as the GPU meter, in place of nvml."""

    enabled: bool = False
    interval_seconds: Duration = 1.0
    url: Url = "http://127.0.0.1:9400/metrics"


class BmcMeter(Section, frozen=True, kw_only=True):
    """Node power from the board's management controller; ipmitool asks the local one and needs no address."""

    enabled: bool = False
    interval_seconds: Duration = 10.0
    protocol: Literal["ipmi", "redfish"] = "ipmi"
    url: Url = ""
    user: OptionalName = ""
    password_file: SecretFile = None
    ca_file: OptionalPath = None

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.enabled and self.protocol == "redfish":
            for key in ("url", "user", "password_file"):
                if not getattr(self, key):
                    yield (key,), 'is missing; protocol = "redfish" needs url, user and password_file'


class EngineServer(Section, frozen=True, kw_only=True):
    """A model server that is not found, or of which more is known; "" and () leave open what its page tells."""

    identity = "url"

    url: Url
    name: OptionalName = ""
    model: OptionalName = ""
    devices: tuple[Name, ...] = ()


class EngineMeter(Section, frozen=True, kw_only=True):
    """The model servers' own counters. `discover`: servers found on this host are asked without being named here."""

    enabled: bool = True
    interval_seconds: Duration = 1.0
    discover: bool = True
    urls: tuple[Url, ...] = ()
    servers: tuple[EngineServer, ...] = ()

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if "" in self.urls:
            yield ("urls",), "holds an empty URL; remove it"
        for number, server in enumerate(self.servers):
            if not server.url:
                yield ("servers", number, "url"), 'is empty; write one as in "http://127.0.0.1:8000/metrics"'
            elif server.url in self.urls:
                yield ("servers", number, "url"), "is in urls too; name it once"
            if server.name and server.name in [each.name for each in self.servers[:number]]:
                yield ("servers", number, "name"), "is another server's name; give each its own"


class Collect(Section, frozen=True, kw_only=True):
    """One table per meter, and where this process sees the host's /proc and /sys."""

    procfs: LocalPath = Path("/proc")
    sysfs: LocalPath = Path("/sys")
    nvml: Meter = Meter()
    dcgm: DcgmMeter = DcgmMeter()
    rapl: Meter = Meter()
    cpu_model: CpuModel = CpuModel()
    bmc: BmcMeter = BmcMeter()
    processes: Processes = Processes()
    engine: EngineMeter = EngineMeter()

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.nvml.enabled and self.dcgm.enabled:
            yield ("dcgm", "enabled"), "nvml would meter the same GPUs; set enabled = false under [collect.nvml]"


class Logging(Section, frozen=True, kw_only=True):
    """The daemon's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
