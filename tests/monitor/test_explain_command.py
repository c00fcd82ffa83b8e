"""`wattribute explain`: on the example worked by hand, and on simulated hosts against their books."""

import json
from math import hypot
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collectors.recording import load_recording
from collectors.simulate.presets import PRESETS
from collectors.simulate.simulate import simulate
from collectors.units import SECONDS_PER_DAY
from monitor.cli.explain import explain
from monitor.config.sections import Config
from monitor.core.questions import AllocationQuery, RequestsQuery
from monitor.query import every_request
from monitor.roles.embedded import LOCAL_ADMIN, LOG_FILE, Embedded
from monitor.service import replay_into

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "two-requests"


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(explain, ["--data", str(data), "--from", "2026-01-05", "--to", "2026-01-06", *arguments])


def played(recording: Path, data: Path) -> Path:
    """The data folder of that recording."""
    with Embedded(data, Config()) as house:
        replay_into(house, [load_recording(recording)])
    return data


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's."""
    return played(EXAMPLE, tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of two GPUs and three models."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate(PRESETS["demo"](10.0), 3, folder / "recording", permutations=2)
    return played(folder / "recording", folder / "data")


def test_the_example_that_a_person_can_check(example: Path) -> None:
    """900 J of 3 000 J, all of them equal parts: 600 J alone and half of 600 J."""
    shown = run(example, "A").stdout.splitlines()
    assert shown[0] == "A (attempt 0) of chat, team search, on gpu-01"
    assert "120 tokens in, 80 tokens out" in shown[1]
    assert shown[6].split() == (
        [
            "2026-01-05T08:00:00.000Z",
            "GPU-0",
            "3,000.000",
            "900.000",
            "0.000",
            "900.000",
            "900.000",
            "200.000",
            "1,000.000",
        ]
    )
    assert shown[-2] == "rests on: measured 900.000 J; how far the split may be off is not known"
    assert shown[-1] == "in the books: 900.000 J"


def test_each_requests_figures_add_up_to_what_stands_in_the_books(simulated: Path) -> None:
    """Every tenth of the run: device by device to the meter, own tokens and equal part to the request, all to 1e-9."""
    with Embedded(simulated, Config()) as house:
        asked = RequestsQuery(start=0.0, end=SECONDS_PER_DAY * 30_000)
        lines = list(every_request(house.query(), LOCAL_ADMIN, asked))[::10]
    assert len(lines) >= 10
    for line in lines:
        (told,) = json.loads(run(simulated, line.request_id, "--json").stdout)
        assert told["agrees"] is True
        assert told["booked_joules"] == pytest.approx(line.energy_joules, rel=1e-9)
        assert sum(part["own_joules"] for part in told["parts"]) == pytest.approx(line.marginal_joules, rel=1e-9)
        band = (told["band"]["low_joules"], told["band"]["high_joules"])
        assert band == pytest.approx((line.low_joules, line.high_joules), rel=1e-4)
        assert band[0] < line.energy_joules / 1.05 < line.energy_joules / 0.95 < band[1]
        for part in told["parts"]:
            assert part["own_joules"] + part["equal_joules"] == pytest.approx(part["energy_joules"], rel=1e-9)
            whole = part["energy_joules"] + part["others_joules"] + part["idle_joules"] + part["unattributed_joules"]
            assert whole == pytest.approx(part["measured_joules"], rel=1e-9)
            assert 0.0 <= part["own_joules"] <= part["priced_joules"] * (1 + 1e-9)


def test_a_request_says_between_what_its_joules_lie(simulated: Path) -> None:
    """The band in words, and what the joules rest on: in the first minutes nothing is learned."""
    shown = run(simulated, "demo-3-000000").stdout
    assert "rests on: " in shown
    assert "learned" not in shown
    assert "nine times in ten it is truly " in shown


def test_own_tokens_are_priced_as_the_model_says(simulated: Path) -> None:
    """Of a request that was never scaled down, what its windows were priced at is its tokens' price as a whole."""
    (told,) = json.loads(run(simulated, "demo-3-000000", "--json").stdout)
    scalars = told["parts"][0]["scalars"]
    assert (scalars["joules_per_flop"], scalars["joules_per_byte"]) == (1.2e-12, 0.18e-9)
    priced = sum(part["priced_joules"] for part in told["parts"])
    assert sum(part["own_joules"] for part in told["parts"]) == pytest.approx(priced, rel=1e-6)


def test_a_power_limit_that_prices_go_by_is_told(tmp_path: Path) -> None:
    """Four minutes of a board at 330 W, which draws less in the pauses between its steps."""
    simulate(PRESETS["capped"](4.0), 3, tmp_path / "recording", permutations=2)
    data = played(tmp_path / "recording", tmp_path / "data")
    with Embedded(data, Config()) as house:
        asked = RequestsQuery(start=0.0, end=SECONDS_PER_DAY * 30_000)
        line = max(every_request(house.query(), LOCAL_ADMIN, asked), key=lambda line: line.energy_joules)
    (told,) = json.loads(run(data, line.request_id, "--json").stdout)
    held = [part["held_watts"] for part in told["parts"] if part["held_watts"] is not None]
    assert held
    assert all(300.0 < each < 330.0 for each in held)
    assert (
        f"gpu0: in {len(held)} of {len(told['parts'])} windows a power limit held it, at"
        in run(data, line.request_id).stdout
    )


NODE = """
host = "gpu-01"
zone = "FR"

[[devices]]
id = "node"
kind = "node"
idle_watts = 150.0

[[devices]]
id = "GPU-0"
kind = "gpu"
hardware = "NVIDIA A100-SXM4-40GB"
parent = "node"
"""


def test_the_rest_of_a_node_is_told_by_all_meters_that_it_is_made_of(tmp_path: Path) -> None:
    """A is alone for 4 s of a node's 1 000 W, a GPU's 700 W in it: 2 800 J of the GPU, and 600 J of the rest's 3 000.

    These are a fifth of the node's 10 000 J less a fifth of the GPU's 7 000 J, so A has 2 000 J by the node's meter and
    2 800 - 1 400 by the GPU's. A report, which knows that nobody else used any, says the same without a split.
    """
    recording = tmp_path / "recording"
    recording.mkdir()
    (recording / "host.toml").write_text(NODE)
    samples = [f"2026-01-05T08:00:{at}Z,{name},{watts}" for at in ("00", "10") for name, watts in METERED]
    (recording / "readings.csv").write_text("\n".join(["time,device,power_watts", *samples, ""]))
    (recording / "requests.jsonl").write_text(ALONE)
    data = played(recording, tmp_path / "data")
    (told,) = json.loads(run(data, "A", "--json").stdout)
    assert {part["device"]: part["energy_joules"] for part in told["parts"]} == pytest.approx(
        {"node": 600.0, "GPU-0": 2_800.0}
    )
    off, split = hypot(2_000.0, 1_400.0), told["band"]["split_joules"]
    by_meters = (told["band"]["low_joules"] + split, told["band"]["high_joules"] - split)
    assert by_meters == pytest.approx((3_400.0 - off / 21, 3_400.0 + off / 19), rel=1e-5)
    with Embedded(data, Config()) as house:
        asked = AllocationQuery(start=0.0, end=SECONDS_PER_DAY * 30_000, by=("team",))
        (line,) = [each for each in house.query().allocation(LOCAL_ADMIN, asked).lines if each.line.key == ("search",)]
    assert by_meters == pytest.approx((line.line.low_joules, line.line.high_joules), rel=1e-5)


METERED = (("node", 1_000.0), ("GPU-0", 700.0))
ALONE = (
    '{"request_id": "A", "model": "meta-llama/Llama-3.1-8B-Instruct", "team": "search", "input_tokens": 120,'
    ' "output_tokens": 80, "start": "2026-01-05T08:00:00Z", "end": "2026-01-05T08:00:04Z"}\n'
)


def test_what_is_not_there_is_said(example: Path) -> None:
    """No such request, or not in that time: wrong use, with what to try."""
    result = run(example, "Z")
    assert result.exit_code == 2
    assert "no request 'Z' in the books from 2026-01-05" in result.stderr
    assert run(example, "A", "--from", "teatime").exit_code == 2


def test_a_log_that_no_longer_holds_the_records(tmp_path: Path) -> None:
    """The books say 900 J and the log nothing: it says so, and ends with 1."""
    data = played(EXAMPLE, tmp_path)
    for file in data.glob(f"{LOG_FILE}*"):
        file.unlink()
    with Embedded(data, Config()):
        pass  # a new log
    result = run(data, "A")
    assert result.exit_code == 1
    assert "in the books: 900.000 J, which is not the 0.000 J computed here" in result.stdout
    assert "the log no longer gives what the books say" in result.stderr
