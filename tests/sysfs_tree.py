"""A powercap tree of real files that a test advances, with the corners of /proc that the CPU's meters read."""

import shutil
from pathlib import Path

RANGE_MICROJOULES = 262_143_328_850
"""What a Xeon's max_energy_range_uj says: 2^32 counts of 2^-14 J, rounded as the kernel does."""


class PowercapTree:
    """`sysfs` and `procfs` below one folder; zones are named by their folder ("intel-rapl:0")."""

    def __init__(self, root: Path, *, boot_id: str = "boot-1") -> None:
        self.sysfs, self.procfs = root / "sys", root / "proc"
        self._powercap = self.sysfs / "class" / "powercap"
        self._powercap.mkdir(parents=True)
        (self._powercap / "intel-rapl").mkdir()
        (self._powercap / "intel-rapl" / "enabled").write_text("1\n")
        self.boot(boot_id)

    def boot(self, boot_id: str) -> None:
        """The host's present life."""
        path = self.procfs / "sys" / "kernel" / "random" / "boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(boot_id + "\n")

    def folder(self, zone: str) -> Path:
        """Where its files are."""
        return self._powercap / zone

    def add(
        self,
        zone: str,
        name: str,
        *,
        microjoules: int = 0,
        range_microjoules: int | None = RANGE_MICROJOULES,
        limit_watts: int | None = None,
    ) -> None:
        """A zone; range None: the file is not there."""
        folder = self.folder(zone)
        folder.mkdir()
        (folder / "name").write_text(name + "\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        if range_microjoules is not None:
            (folder / "max_energy_range_uj").write_text(f"{range_microjoules}\n")
        if limit_watts is not None:
            (folder / "constraint_0_max_power_uw").write_text(f"{limit_watts * 1_000_000}\n")

    def set(self, zone: str, microjoules: int | str) -> None:
        """The counter's next value, in the same file as before, which is empty at no moment: the kernel's never is."""
        path = self.folder(zone) / "energy_uj"
        text = f"{microjoules}\n".ljust(path.stat().st_size, "\n")
        with path.open("r+b", buffering=0) as file:
            file.write(text.encode())

    def advance(self, zone: str, joules: float) -> None:
        """The counter counts on, and starts again at its range."""
        path = self.folder(zone) / "max_energy_range_uj"
        span = int(path.read_text()) if path.exists() else RANGE_MICROJOULES
        before = int((self.folder(zone) / "energy_uj").read_text())
        self.set(zone, (before + round(joules * 1e6)) % span)

    def remove(self, zone: str) -> None:
        """The zone goes away, as a driver that is unloaded takes it along."""
        shutil.rmtree(self.folder(zone))

    def sockets(self, *numbers: int) -> None:
        """One processor on each of these sockets."""
        for processor, number in enumerate(numbers):
            folder = self.sysfs / "devices" / "system" / "cpu" / f"cpu{processor}" / "topology"
            folder.mkdir(parents=True)
            (folder / "physical_package_id").write_text(f"{number}\n")


class HandClock:
    """Wall time and the machine's steady time, moved by the test; `step` sets the wall alone."""

    def __init__(self, at: float = 1_000_000.0, tick: float = 500.0) -> None:
        self.at, self.tick = at, tick

    def now(self) -> float:
        """Unix seconds."""
        return self.at

    def boot_seconds(self) -> float:
        """Seconds since the machine started."""
        return self.tick

    def pass_seconds(self, seconds: float) -> None:
        """Both go on."""
        self.at += seconds
        self.tick += seconds

    def step(self, seconds: float) -> None:
        """The wall clock is set."""
        self.at += seconds
