"""What doctor says of each GPU, through a real library and a real child."""

from pathlib import Path

import fake_nvml
import pytest
from fake_nvml import FakeNvml, uuid

from collectors.nvml_doctor import diagnose


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Two boards, loaded by every child of this process."""
    made = FakeNvml(tmp_path, 2)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def test_each_gpu_is_told_with_its_way_of_metering(nvml: FakeNvml) -> None:
    """One with a counter, one whose power is integrated, and the driver's version above them."""
    nvml.gpu(1).set_field("energy", 0, fake_nvml.NOT_SUPPORTED)
    nvml.gpu(1).answer("energy", fake_nvml.NOT_SUPPORTED)
    driver, *gpus = diagnose()
    assert (driver.state, driver.what) == ("ok", "driver 590.48.01, 2 GPU(s)")
    assert [(gpu.subject, gpu.state, gpu.what) for gpu in gpus] == [
        (uuid(0), "ok", "NVIDIA H100 80GB HBM3: energy counter, 100 W now"),
        (uuid(1), "ok", "NVIDIA H100 80GB HBM3: no energy counter, so power is integrated, 100 W now"),
    ]


def test_persistence_mode_off_names_its_command(nvml: FakeNvml) -> None:
    """Without it the counter begins at 0 whenever the driver unloads."""
    nvml.gpu(0).persistence = 0
    (line,) = [line for line in diagnose() if line.state == "warning"]
    assert line.subject == uuid(0)
    assert line.mend.startswith("nvidia-smi -pm 1")


@pytest.mark.parametrize(
    ("gpm", "refusal", "state", "said"),
    [
        (1, 0, "ok", "split by how active each of them is (GPM counters)"),
        (0, 0, "warning", "cannot be told (board or driver has no GPM counters)"),
        (1, fake_nvml.NO_PERMISSION, "warning", "cannot be told (Insufficient Permissions)"),
    ],
)
def test_mig_is_told(nvml: FakeNvml, gpm: int, refusal: int, state: str, said: str) -> None:
    """Its instances are counted and metered as one, and whether they can be told apart is said."""
    gpu = nvml.gpu(0)
    gpu.set_instances("MIG-a", "MIG-b", "MIG-c")
    gpu.gpm = gpm
    gpu.answer("gpm_sample", refusal)
    (line,) = [line for line in diagnose() if line.what.startswith("MIG: 3 instances, metered as one GPU and ")]
    assert (line.subject, line.state) == (uuid(0), state)
    assert line.what.endswith(said)


def test_what_cannot_be_opened_or_read_is_broken(nvml: FakeNvml) -> None:
    """A lost board is named by its index, one that tells nothing by its UUID."""
    nvml.gpu(0).answer("handle", fake_nvml.GPU_IS_LOST)
    for call in ("fields", "energy", "power"):
        nvml.gpu(1).answer(call, fake_nvml.NO_PERMISSION)
    broken = {line.subject: line.what for line in diagnose() if line.state == "broken"}
    assert broken == {
        "GPU #0": "cannot be opened: GPU is lost",
        uuid(1): "NVIDIA H100 80GB HBM3: neither energy nor power can be read (Insufficient Permissions)",
    }


def test_a_hang_is_said_within_the_deadline(nvml: FakeNvml) -> None:
    """Doctor never waits for the driver."""
    nvml.gpu(1).hang = 1
    (line,) = diagnose(deadline_seconds=0.4)
    assert (line.state, line.what) == ("broken", "GPU #1 did not answer within 0.4 s")


def test_a_driver_that_is_not_loaded_names_its_command(nvml: FakeNvml) -> None:
    """The library is there, the module is not."""
    nvml.control.init_code = fake_nvml.DRIVER_NOT_LOADED
    (line,) = diagnose()
    assert (line.subject, line.state) == ("driver", "broken")
    assert "modprobe nvidia" in line.mend
