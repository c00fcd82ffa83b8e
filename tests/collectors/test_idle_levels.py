"""What a board draws at rest, learned from its quiet time: levels worked by hand, and what must not move them."""

from hypothesis import given
from hypothesis import strategies as st

from collectors.dcgm_board import BoardTrack
from collectors.dcgm_page import Board
from collectors.idle_levels import IdleLevels, at_rest
from collectors.nvml_gpu import MeteredGpu
from collectors.nvml_samples import Active, GpuFacts, GpuRead, MigInstance, SlowFacts
from collectors.readings import EnergyReading, Method


class Bench:
    """An IdleLevels whose board is looked at every ten seconds; its limit is 700 W."""

    def __init__(self) -> None:
        self.levels = IdleLevels()
        self._at = 0.0

    def spends(
        self,
        watts: float,
        *,
        loaded: bool | None,
        busy: float | None = 0.0,
        times: int = 1,
        seconds: float = 10.0,
        method: Method = "counter",
    ) -> None:
        """So many stretches of `seconds`, each with a look at its end."""
        for _ in range(times):
            start, self._at = self._at, self._at + seconds
            joules = watts * seconds
            reading = EnergyReading(device="g", start=start, end=self._at, energy_joules=joules, method=method)
            self.levels.note([reading])
            self.levels.look(busy_ratio=busy, loaded=loaded, limit_watts=700.0)

    @property
    def watts(self) -> tuple[float | None, float | None]:
        return self.levels.bare_watts, self.levels.loaded_watts


def test_each_state_has_a_level_of_its_own() -> None:
    """70 W bare, 118 W with a model loaded; three quiet chunks of a state make its level, two do not."""
    board = Bench()
    board.spends(70.0, loaded=False, times=3)
    assert board.watts == (None, None), "the first look only tells how it is: what was before it is unknown"
    board.spends(70.0, loaded=False)
    assert board.watts == (70.0, None)
    board.spends(118.0, loaded=True, times=3)
    assert board.watts == (70.0, None), "the first of them saw the model come"
    board.spends(118.0, loaded=True)
    assert board.watts == (70.0, 118.0)


def test_work_is_no_rest() -> None:
    """Somebody busy, or nobody able to tell, teaches nothing."""
    board = Bench()
    board.spends(500.0, loaded=True, busy=0.4, times=50)
    board.spends(500.0, loaded=True, busy=None, times=50)
    assert board.watts == (None, None)


def test_a_driver_that_sees_nobody_at_work_is_not_believed() -> None:
    """421 W of 700 W with nobody busy are more than 0.6 of the limit: no board is at rest there. 419 W could be."""
    board = Bench()
    board.spends(421.0, loaded=True, times=20)
    assert board.watts == (None, None)
    board.spends(419.0, loaded=True, times=3)
    assert board.watts == (None, 419.0)


def test_work_that_is_not_seen_moves_no_level() -> None:
    """Twenty chunks at 118 W among ten at 300 W that nobody was seen to cause: 118 W."""
    board = Bench()
    board.spends(118.0, loaded=True)
    for _ in range(10):
        board.spends(118.0, loaded=True, times=2)
        board.spends(300.0, loaded=True)
    assert board.watts == (None, 118.0)


def test_a_recovered_reading_teaches_nothing() -> None:
    """Ten minutes in which nobody looked may hold anything."""
    board = Bench()
    board.spends(100.0, loaded=True)
    board.spends(90.0, loaded=True, seconds=600.0, method="recovered", times=5)
    assert board.watts == (None, None)


def test_a_chunk_is_ten_seconds_also_of_looks_each_second() -> None:
    """Ten looks of 1 s are one chunk; a busy second among them throws away what was gathered."""
    board = Bench()
    board.spends(60.0, loaded=False, seconds=1.0)
    board.spends(60.0, loaded=False, seconds=1.0, times=29)
    board.spends(60.0, loaded=False, seconds=1.0, busy=0.5)
    board.spends(60.0, loaded=False, seconds=1.0, times=9)
    assert board.watts == (None, None), "two chunks and two begun ones"
    board.spends(60.0, loaded=False, seconds=1.0)
    assert board.watts == (60.0, None)


def test_just_unloaded_it_is_still_taken_for_loaded() -> None:
    """For one look: what exceeds the higher level is surely work. Just loaded it is so at once."""
    board = Bench()
    states = []
    for loaded in (False, True, True, False, False):
        board.spends(70.0, loaded=loaded)
        states.append(board.levels.loaded)
    assert states == [False, True, True, True, False]


def test_where_nobody_knows_what_is_loaded_there_is_one_level() -> None:
    """It holds in both states, until one of its own is known."""
    board = Bench()
    board.spends(52.0, loaded=None, times=4)
    assert board.watts == (52.0, 52.0)
    assert board.levels.loaded is None
    board.spends(90.0, loaded=True, times=4)
    assert board.watts == (52.0, 90.0)


@given(
    st.lists(st.floats(40.0, 49.9), min_size=20, max_size=60),
    st.lists(st.floats(65.0, 700.0), max_size=20),
)
def test_the_level_lies_among_the_quiet_ones(quiet: list[float], louder: list[float]) -> None:
    """Whatever happens above 1.25 x the quietest changes nothing but the lowest twentieth that is left out."""
    level = at_rest(quiet + louder)
    assert level is not None
    assert min(quiet) <= level <= max(quiet)
    assert at_rest(sorted(louder + quiet, reverse=True)) == level, "in any order"


def test_nvml_tells_who_is_there_and_who_is_busy() -> None:
    """Looks 10 s apart, 1 180 J each: a process with memory and nobody busy is loaded and at rest at 118 W.

    With MIG and no GPM counters nobody tells who is busy: nothing is learned.
    """
    facts = GpuFacts(token="#0", uuid="g", pci="", name="NVIDIA H100 80GB HBM3")
    for instances, expected in (((), (True, 118.0)), ((MigInstance(uuid="MIG-1"),), (None, None))):
        gpu = MeteredGpu(facts, boot_id="b", marks={})
        for look in range(6):
            at = 10.0 * look
            slow = SlowFacts(
                limit_watts=700.0,
                instances=instances,
                busy=None if instances else (),
                processes=((7, 1e10),),
            )
            read = GpuRead(token="#0", uuid="g", tick=at, energy_joules=1_180.0 * look, slow=slow)
            gpu.take(read, at, at, lambda _pid: True)
        (device,) = gpu.devices
        assert (device.loaded, device.loaded_watts) == expected


def test_nvml_tells_the_rest_of_a_board_with_mig_by_its_instances() -> None:
    """80 W, rounds each 5 s, looks each 10 s: its one level, where both instances rest in every round.

    One busy in every other round, between two looks, is no rest; nor is a round in which one is not told.
    """
    facts = GpuFacts(token="#0", uuid="g", pci="", name="NVIDIA H100 80GB HBM3")
    mig = (MigInstance(uuid="MIG-1", gpu_instance=1), MigInstance(uuid="MIG-2", gpu_instance=2))
    told = []
    for between in (((1, 0.0), (2, 0.0)), ((1, 0.0), (2, 0.4)), ((1, 0.0),)):
        gpu = MeteredGpu(facts, boot_id="b", marks={})
        for round_ in range(11):
            at = 5.0 * round_
            is_look = round_ % 2 == 0
            read = GpuRead(
                token="#0",
                uuid="g",
                tick=at,
                energy_joules=400.0 * round_,
                slow=SlowFacts(limit_watts=700.0, instances=mig) if is_look else None,
                active=Active(since=at - 5.0 if round_ else None, ratios=((1, 0.0), (2, 0.0)) if is_look else between),
            )
            gpu.take(read, at, at, lambda _pid: True)
        told.append((gpu.devices[0].loaded, gpu.devices[0].bare_watts))
    assert told == [(None, 80.0), (None, None), (None, None)]


def test_a_board_with_mig_rests_when_all_of_its_instances_do() -> None:
    """By a dcgm-exporter: 80 W with both at rest is its one level; one that is busy, or not told, is no rest."""
    told = []
    for first, second in ((0.0, 0.0), (0.0, 0.4), (0.0, None)):
        track = BoardTrack(Board(uuid="g", energy_joules=0.0), boot_id="b", mark=None)
        for page in range(1, 9):
            instances = {"1": first, "2": second}
            board = Board(uuid="g", energy_joules=800.0 * page, memory_mebibytes=9e3, instances=instances)
            track.take(board, at=10.0 * page, tick=10.0 * page)
        told.append((track.device.loaded, track.device.bare_watts))
    assert told == [(None, 80.0), (None, None), (None, None)]
