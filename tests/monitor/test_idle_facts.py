"""The idle power that holds, and the models on a device, from meters through the log into the idle row of the books."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from http_pages import served_pages
from proc_tree import ProcTree

from collectors.clock import Clock
from collectors.dcgm import DcgmMeter
from collectors.meter import Measured
from collectors.readings import Device, EnergyReading, EngineReading, HostProfile, ModelFacts
from collectors.servers import KnownServers
from monitor.config.sections import Config
from monitor.core.account import account
from monitor.core.points import ENERGY
from monitor.core.readings import Told
from monitor.core.usage_columns import columns_of
from monitor.log.codec import Decoder, ReadingBatch
from monitor.log.sqlite import SqliteLog
from monitor.roles.collect import CollectRole, last_batch
from monitor.roles.idle_facts import LONGEST_NAME, at_rest_now, with_residents
from monitor.roles.servers_now import ServersNow

T0 = 1_764_000_000.0
UUID = "GPU-c2f76b33"
BARE, LOADED = 3.0, 18_000.0
"""MiB in use, without and with a model."""


class Time(Clock):
    """Wall and steady time that a test moves."""

    seconds = 0.0

    def now(self) -> float:
        return T0 + self.seconds


def page(millijoules: float, mebibytes: float, busy: float = 0.0) -> str:
    labels = f'{{gpu="0",UUID="{UUID}",modelName="NVIDIA L4"}}'
    rows = {
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": f"{millijoules:.0f}",
        "DCGM_FI_DEV_FB_USED": f"{mebibytes:.0f}",
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": f"{busy:f}",
    }
    return "".join(f"{name}{labels} {value}\n" for name, value in rows.items())


class Board:
    """What has been used so far; the counter outlives the processes that read it."""

    joules = 1_000.0


def run(
    log: SqliteLog, clock: Time, board: Board, stretches: Sequence[tuple[float, float, float, int]]
) -> list[Device]:
    """One life of role collect on a dcgm-exporter: (watts, MiB, busy, pages 10 s apart) each; the device per batch."""
    shown: list[Device] = []
    with served_pages() as pages:
        meter = DcgmMeter(f"{pages.url}/metrics", interval_seconds=10.0, clock=clock, boot_id="b", tick=clock.now)
        role = CollectRole(log, Config(), [meter], host="h", clock=clock)
        with closing(meter):
            for watts, mebibytes, busy, times in stretches:
                for _ in range(times):
                    clock.seconds += 10.0
                    board.joules += 10.0 * watts
                    pages.show("/metrics", page(1_000.0 * board.joules, mebibytes, busy))
                    measured: Sequence[Measured] = meter.read()
                    role.take(meter, measured)
                    role._write()
                    batch = last_batch(log, "h")
                    if measured and batch is not None:
                        shown.append(batch.profile.devices[0])
    return shown


def test_the_level_of_the_state_that_it_is_in_goes_with_the_readings(tmp_path: Path) -> None:
    """16 W bare, 30 W with a model loaded. While it works the level stays; a restart forgets neither."""
    log, clock, board = SqliteLog(tmp_path / "log.db"), Time(), Board()
    shown = run(log, clock, board, [(16.0, BARE, 0.0, 6), (30.0, LOADED, 0.0, 5), (70.0, LOADED, 0.9, 3)])
    told = [(each.loaded, each.idle_watts, each.idle_source) for each in shown]
    assert len(told) == 12, "the first two pages close no interval"
    assert told[0] == (False, None, "unknown"), "nothing is learned yet: the table counts"
    assert told[3] == (False, 16.0, "quiet")
    assert told[4] == (True, None, "unknown"), "what a loaded one rests at was never seen"
    assert told[8:] == [(True, 30.0, "quiet")] * 4
    again = run(log, clock, board, [(70.0, LOADED, 0.9, 4), (16.0, BARE, 0.0, 3)])
    assert [each.idle_watts for each in again] == [30.0, 30.0, 30.0, 30.0, 16.0, 16.0]
    log.close()


def test_what_the_meter_tells_itself_counts_more() -> None:
    """A model of a CPU's power knows its idle watts; nobody else's level takes their place."""
    cpu = Device(id="cpu", kind="cpu", idle_watts=27.0, idle_source="table", bare_watts=20.0)
    assert at_rest_now(cpu).idle_watts == 27.0
    gpu = Device(id="g", kind="gpu", loaded=True, loaded_watts=118.0)
    before = Device(id="g", kind="gpu", bare_watts=71.0, loaded_watts=120.0)
    assert at_rest_now(gpu, before) == Device(
        id="g",
        kind="gpu",
        loaded=True,
        bare_watts=71.0,
        loaded_watts=118.0,
        idle_watts=118.0,
        idle_source="quiet",
    )


def test_models_of_found_servers_are_on_their_devices(tmp_path: Path) -> None:
    """By the first name that a server answers to; a worker's memory is its server's; paths without end are left out."""
    (tmp_path / "proc").mkdir()
    tree = ProcTree(tmp_path / "proc")
    tree.start(1, "init", parent=0)
    tree.start(50, "vllm serve qwen/q --served-model-name zeta alpha --port 8000")
    tree.start(51, "VLLM::Worker_TP0", parent=50)
    tree.start(60, "vllm serve phi --port 8001")
    on_devices = [("GPU-1", 51, 1e9), ("GPU-1", 60, 1e9), ("GPU-2", 51, 1e9), ("GPU-3", 999, 1e9)]
    now = ServersNow(KnownServers(procfs=tree.root), lambda: on_devices, procfs=tree.root)
    assert now.residents() == {"GPU-1": ("phi", "zeta"), "GPU-2": ("zeta",)}
    gpu = Device(id="GPU-1", kind="gpu")
    assert with_residents(gpu, now.residents()).resident_models == ("phi", "zeta")
    assert with_residents(gpu, {"GPU-1": ("x" * (LONGEST_NAME + 1), "y")}).resident_models == ("y",)
    assert with_residents(gpu, {"GPU-2": ("zeta",)}) is gpu


def test_the_gap_between_requests_names_the_models_that_stayed() -> None:
    """10 s at 118 W, nobody asks: 1 180 J idle, named by configuration, found server and the server's own page."""
    gpu = Device(
        id="g", kind="gpu", idle_watts=118.0, idle_source="quiet", loaded=True, resident_models=("found", "both")
    )
    profile = HostProfile(host="h", devices=(gpu,), models=(ModelFacts(name="stated", devices=("g",)),))
    reading = EnergyReading(device="g", start=T0, end=T0 + 10.0, energy_joules=1_180.0, method="counter")
    engines = [
        EngineReading(server="vllm-8000", model=model, devices=devices, start=T0 + 1.0, end=T0 + 2.0, steps=0.0)
        for model, devices in (("both", ("g",)), ("asked", ()), ("", ("g",)), ("elsewhere", ("g2",)))
    ]
    found = account(
        "h",
        T0,
        T0 + 10.0,
        readings=[Told(reading, profile)],
        usages=columns_of([]),
        engines=engines,
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
    )
    (idle,) = [row for row in found.rows if row.measurement == ENERGY.name and "idle" in row.tags]
    facts = dict(zip(ENERGY.fields, idle.fields, strict=True))
    assert (facts["energy_joules"], facts["idle_source"]) == (1_180.0, "quiet")
    assert facts["resident_models"] == "asked,both,found,stated"


def test_the_facts_come_through_the_log(tmp_path: Path) -> None:
    """Whoever reads the log computes with them."""
    log = SqliteLog(tmp_path / "log.db")
    run(log, Time(), Board(), [(16.0, BARE, 0.0, 6)])
    decoder = Decoder()
    batches = [decoder.decode(record) for record in log.read({"readings": 0}, 100)]
    last = [each.profile.devices[0] for each in batches if isinstance(each, ReadingBatch)][-1]
    assert (last.idle_watts, last.bare_watts, last.loaded_watts) == (16.0, 16.0, None)
    log.close()
