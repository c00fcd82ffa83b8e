"""Records that flow in from the hardware: interval energy, never running totals. Missing is absent, not 0.

Intervals are half-open [start, end) in unix seconds. All records are frozen, keyword-only msgspec Structs, so what is
in the log is the record itself.
"""

from typing import Literal

import msgspec

from collectors.units import UnixSeconds

DeviceKind = Literal["gpu", "cpu", "dram", "node"]
Method = Literal["counter", "integrated", "modelled", "recovered"]
IdleSource = Literal["configured", "quiet", "table", "unknown"]


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A meter of one host, and the facts about it that the accounting needs.

    `parent` names the meter that already contains this one, so that the two are never added. `hardware` is the type as
    its maker names it ("NVIDIA A100-SXM4-40GB"). `idle_watts` is the power with nothing running, `idle_source` says
    where that figure comes from. `instances` are the ids of its parts (MIG) that have no meter of their own: a request
    placed on one of them is on this device. `instance_slices` are their sizes, in their order; () is not known.
    `instance_units` are alike for those of which only the activity of all together is known; () is each its own.

    `loaded` tells whether a process holds memory on it, `bare_watts` and `loaded_watts` are what it was seen to draw at
    rest without and with one, `resident_models` whose servers are on it. None, and no name, is not known.
    """

    id: str
    kind: DeviceKind
    hardware: str = ""
    parent: str | None = None
    idle_watts: float | None = None
    idle_source: IdleSource = "unknown"
    instances: tuple[str, ...] = ()
    instance_slices: tuple[float, ...] = ()
    instance_units: tuple[int, ...] = ()
    loaded: bool | None = None
    bare_watts: float | None = None
    loaded_watts: float | None = None
    resident_models: tuple[str, ...] = ()


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a model that a host serves; None is unknown. `devices` are the GPUs of its server, if told.

    `kv_bytes_per_token` is what one token of context adds to the KV cache: 2 x layers x KV heads x head size x bytes.
    `source` is "folder" where the parameters are those of the server's own model folder, "" where a person told them.
    """

    name: str
    parameters: float | None = None
    active_parameters: float | None = None
    bytes_per_parameter: float | None = None
    kv_bytes_per_token: float | None = None
    devices: tuple[str, ...] = ()
    source: str = ""


class HostProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host's own facts, sent with its readings, so that an aggregator needs no configuration per host.

    `zone` is an Electricity Maps zone key ("FR", "US-CAL-CISO"); "" is unknown. `pue` >= 1.
    """

    host: str
    zone: str = ""
    site: str = ""
    pue: float = 1.0
    devices: tuple[Device, ...] = ()
    models: tuple[ModelFacts, ...] = ()

    def device(self, device_id: str) -> Device | None:
        """The device with this id, or None."""
        return next((device for device in self.devices if device.id == device_id), None)


class EnergyReading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The energy that one device of the batch's host used in [start, end), and how it was come by.

    Identity is (host, device, start). `energy_joules` is finite and >= 0, end > start.
    """

    device: str
    start: UnixSeconds
    end: UnixSeconds
    energy_joules: float
    method: Method


class CounterMark(msgspec.Struct, frozen=True, kw_only=True):
    """A raw energy counter at one moment, so that a later start can recover what was used in between.

    `range_joules` is where the counter wraps (None: it does not), `boot_id` tells one life of the counter from another.
    """

    device: str
    at: UnixSeconds
    raw_joules: float
    range_joules: float | None
    boot_id: str


class ActivityReading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How busy one consumer kept a device of the batch's host in [start, end): what the split needs beside joules.

    `consumer` is "server:NAME" (a model server), "other" (every process that is none), "instance:ID" (a MIG instance)
    or "" (the device as a whole). `busy_seconds` is device time: 0 to the interval's length on a GPU, to that times its
    cores on a CPU. `state` are words for the device's condition, sorted: "power_capped", "thermal_throttled", ..
    """

    device: str
    start: UnixSeconds
    end: UnixSeconds
    consumer: str = ""
    busy_seconds: float = 0.0
    state: tuple[str, ...] = ()


class EngineReading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a model server of the batch's host did for one model in [start, end), as its own counters tell it.

    `server` names it as the processes do ("vllm-8000"), `model` is "" and `devices`, its GPUs, () where not known.
    `steps`, `prefill_tokens` (computed, those of the prefix cache not among them), `cached_tokens` and `decode_tokens`
    are what was done in the interval, never running totals; `running` and `waiting` requests and `kv_tokens` in the
    cache are as they were at its end. None is what this server does not tell, which is not 0: told 4 100 and then 4 160
    steps, `steps` is 60.0; of TGI, which counts tokens when a request ends, `decode_tokens` is None.
    """

    server: str
    model: str
    devices: tuple[str, ...] = ()
    start: UnixSeconds
    end: UnixSeconds
    steps: float | None = None
    prefill_tokens: float | None = None
    cached_tokens: float | None = None
    decode_tokens: float | None = None
    running: float | None = None
    waiting: float | None = None
    kv_tokens: float | None = None


OTHER_PROCESSES = "other"
"""The consumer under which every process that is no model server is counted."""
