"""A daemon's picture of itself for tests: two GPUs, of which one does not answer, and packages that cannot be read."""

from typing import Any

from monitor.selfmetrics import (
    AlertInstance,
    AlertSnapshot,
    DaemonSnapshot,
    DeviceSnapshot,
    LedgerSnapshot,
    MeterSnapshot,
    RoleSnapshot,
    SourceSnapshot,
    Spread,
)

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z

NVML = MeterSnapshot(
    name="nvml",
    state="ok",
    interval_seconds=1.0,
    devices=(
        DeviceSnapshot(
            device="GPU-5c7f7b0e",
            kind="gpu",
            state="ok",
            power_watts=312.5,
            last_reading_at=NOON - 1,
            counter_disagreement_ratio=0.012,
        ),
        DeviceSnapshot(
            device="GPU-77aa",
            kind="gpu",
            state="not_responding",
            detail="asked for 40 s without an answer; see `dmesg` for Xid errors",
            last_reading_at=NOON - 40,
        ),
    ),
    reads=102,
    skipped=3,
    read_errors={"retry_later": 2},
    events={"GPU-5c7f7b0e": {"wrap": 1}},
    read=Spread(count=100, total_seconds=1.5, longest_seconds=0.25),
    late=Spread(count=100, total_seconds=0.5, longest_seconds=0.125),
)
RAPL = MeterSnapshot(
    name="rapl",
    state="broken",
    detail="/sys/class/powercap/intel-rapl:0/energy_uj: permission denied; install the udev rule and add the user",
    interval_seconds=1.0,
)
HALF_IDLE = AlertSnapshot(
    name="half idle",
    measure="idle_ratio",
    above=0.5,
    for_seconds=1_800.0,
    judged_until=NOON - 60,
    instances=(
        AlertInstance(place={"host": "node-1"}, phase="firing", value=0.625, since=NOON - 600),
        AlertInstance(place={"host": "node-2"}, phase="inactive", value=0.25, missing_since=NOON - 70),
    ),
    sent=2,
    failed=1,
)


def daemon(**named: Any) -> DaemonSnapshot:
    """The daemon at noon, an hour after its start."""
    facts: dict[str, Any] = {
        "version": "0.1.0",
        "host": "node-1",
        "pid": 4711,
        "at": NOON,
        "started_at": NOON - 3_600,
        "loop_age_seconds": 0.5,
        "ready": True,
        "config_file": "/etc/wattribute/config.toml",
        "data_directory": "/var/lib/wattribute",
        "roles": (RoleSnapshot(name="collect", state="running"), RoleSnapshot(name="aggregate", state="running")),
        "meters": (NVML, RAPL),
        "sources": (SourceSnapshot(name="gateway", kind="http", state="ok", accepted=1_200, rejected={"bad_json": 3}),),
        "ledger": LedgerSnapshot(
            final_until=NOON - 700, log_time=NOON - 2, windows_final=290, worst_imbalance_ratio=3e-15
        ),
        "alerts": (HALF_IDLE,),
    }
    return DaemonSnapshot(**facts | named)


def healthy() -> DaemonSnapshot:
    """The same with nothing wrong."""
    return daemon(
        meters=(
            MeterSnapshot(name="nvml", state="ok", interval_seconds=1.0, devices=NVML.devices[:1], read=NVML.read),
        ),
        alerts=(),
    )
