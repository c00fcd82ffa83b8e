"""The engine meter on pages of a small real server that advance: what servers did, by hand, and what has a name."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from engine_pages import LLAMA_CPP, SGLANG, TENSORRT_LLM, TGI, TRITON, VLLM, VLLM_V0
from http_pages import Pages, served_pages
from msgspec.structs import replace

from collectors.clock import Clock
from collectors.engine import EngineMeter, diagnose
from collectors.engine_server import LONGEST_PAUSE_SECONDS, TIMEOUT_SECONDS
from collectors.engine_targets import EngineTarget
from collectors.meter import Measured
from collectors.readings import EngineReading

T0 = 1_764_000_000.0


class Time(Clock):
    """Wall and steady time that a test moves."""

    seconds = 0.0
    set_by = 0.0

    def now(self) -> float:
        return T0 + self.seconds + self.set_by

    def tick(self) -> float:
        return 1_000.0 + self.seconds


class Bench:
    """One server and the meter that asks it each second."""

    def __init__(self, pages: Pages) -> None:
        self.pages, self.clock = pages, Time()
        self.targets = [EngineTarget(name="s-1", url=f"{pages.url}/metrics", model="told", devices=("GPU-a",))]
        self.fault: ValueError | None = None
        self.meter = EngineMeter(self.look, interval_seconds=1.0, clock=self.clock, tick=self.clock.tick)

    def look(self) -> list[EngineTarget]:
        """The servers that are there, or what looking for them raises."""
        if self.fault is not None:
            raise self.fault
        return self.targets

    def read(self, page: str | None = None, *, after: float = 1.0, status: int = 200) -> list[EngineReading]:
        """What the meter tells `after` seconds, of this page if it is a new one."""
        if page is not None:
            self.pages.show("/metrics", page, status)
        self.clock.seconds += after
        return engines(self.meter.read())

    @property
    def events(self) -> dict[str, int]:
        return {word: count for (_, word), count in self.meter.health().events.items()}

    @property
    def state(self) -> tuple[str, str]:
        (device,) = self.meter.health().devices
        return device.state, device.detail


def engines(measured: Sequence[Measured]) -> list[EngineReading]:
    return [each for each in measured if isinstance(each, EngineReading)]


@contextmanager
def served() -> Iterator[Bench]:
    with served_pages() as pages:
        bench = Bench(pages)
        with closing(bench.meter):
            yield bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    with served() as found:
        yield found


def llama(decodes: object, prompts: object = 100) -> str:
    """A llama.cpp that has made so many steps."""
    return (
        f"llamacpp:n_decode_total {decodes}\nllamacpp:prompt_tokens_total {prompts}\nllamacpp:requests_processing 2\n"
    )


@pytest.mark.parametrize(
    ("page", "counters", "expected"),
    [
        (
            VLLM,
            {'count{engine="0",model_name="llama"} 410.0': 'count{engine="0",model_name="llama"} 441.0'},
            ("llama", 31.0, 0.0, 0.0, 0.0, 5.0, 1.0, 16_000.0),
        ),
        (VLLM_V0, {"2500.0": "2.56e+03"}, ("llama", None, 0.0, None, 60.0, 3.0, 0.0, 2_000.0)),
        (SGLANG, {"700.0": "731.0", "2900.0": "3000.0"}, ("qwen", 31.0, 0.0, 0.0, 100.0, 9.0, 2.0, 8_192.0)),
        (TGI, {"960": "990", " 40": " 41"}, ("told", 31.0, None, None, None, 5.0, 2.0, None)),
        (LLAMA_CPP, {" 424": " 455", "77454": "77554"}, ("told", 31.0, 100.0, 0.0, None, 3.0, 1.0, None)),
        (TENSORRT_LLM, {"9600.0": "9.7e3"}, ("nemotron", None, 100.0, 0.0, None, 6.0, 0.0, 1_600.0)),
        (TRITON, {" 777": " 808"}, ("tensorrt_llm", 31.0, None, None, None, 4.0, 1.0, 640.0)),
    ],
)
def test_what_each_kind_of_server_did_in_a_second(
    bench: Bench, page: str, counters: dict[str, str], expected: tuple[object, ...]
) -> None:
    """The first page closes no interval; the second is 31 steps on, or what else the kind counts."""
    assert bench.read(page) == []
    assert bench.state == ("waiting", "")
    after = page
    for old, new in counters.items():
        assert after.count(old) == 1
        after = after.replace(old, new)
    (reading,) = bench.read(after)
    assert (reading.server, reading.devices) == ("s-1", ("GPU-a",))
    assert (reading.start, reading.end) == (T0 + 1, T0 + 2)
    assert (
        reading.model,
        reading.steps,
        reading.prefill_tokens,
        reading.cached_tokens,
        reading.decode_tokens,
        reading.running,
        reading.waiting,
        reading.kv_tokens,
    ) == expected
    assert (bench.state, bench.events) == (("ok", ""), {})


def test_intervals_follow_each_other_without_a_gap(bench: Bench) -> None:
    """Each begins where the last ended, however late the meter is."""
    found = [
        reading for at, after in ((1, 1.0), (4, 1.25), (9, 0.75)) for reading in bench.read(llama(at), after=after)
    ]
    assert [(each.start - T0, each.end - T0, each.steps) for each in found] == [(1.0, 2.25, 3.0), (2.25, 3.0, 5.0)]


def test_a_counter_that_falls_is_a_new_beginning(bench: Bench) -> None:
    """That interval is left out and counted; the next one counts from there."""
    bench.read(llama(100))
    assert bench.read(llama(7)) == []
    assert bench.events == {"reset": 1}
    assert [each.steps for each in bench.read(llama(9))] == [2.0]


def test_a_gap_of_more_than_30_s_is_left_out_and_counted(bench: Bench) -> None:
    """30 s are told, 31 are not."""
    bench.read(llama(1))
    assert [each.steps for each in bench.read(llama(2), after=30.0)] == [1.0]
    assert bench.read(llama(3), after=31.0) == [silence(31, 62)]
    assert bench.events == {"engine_gap": 1}
    assert [each.steps for each in bench.read(llama(4))] == [1.0]


def silence(start: float, end: float, *devices: str, server: str = "s-1") -> EngineReading:
    """Of these seconds nothing is told."""
    return EngineReading(server=server, model="", devices=devices or ("GPU-a",), start=T0 + start, end=T0 + end)


def test_a_server_that_gives_no_page_is_told_as_silent(bench: Bench) -> None:
    """Every 10 s from when it became known, while it starts up; then it tells."""
    bench.pages.show("/metrics", "starts up", 503)
    told = [bench.read() for _ in range(27)]
    assert [each for each in told if each] == [[silence(1, 11)], [silence(11, 21)]]
    found = [bench.read(llama(1)) for _ in range(4)]  # asked at 1, 3, 7, 15 and then 31 s
    assert found == [[], [], [], [silence(21, 31)]]
    assert [(each.start - T0, each.end - T0, each.steps) for each in bench.read(llama(5))] == [(31.0, 32.0, 4.0)]


def test_time_that_a_page_may_still_tell_of_is_not_told_as_silent(bench: Bench) -> None:
    """Until 30 s after the last page; then all of it is, and every 10 s what is added."""
    bench.read(llama(1))
    bench.read(llama(2))
    bench.pages.show("/metrics", "busy", 503)
    told = [(at, each) for at in range(3, 60) for each in bench.read()]
    assert told == [(33, silence(2, 33)), (43, silence(33, 43)), (53, silence(43, 53))]


def test_what_a_server_that_is_gone_left_untold_is_told_as_silent(bench: Bench) -> None:
    """It had not answered for 19 s when it went."""
    bench.read(llama(1))
    bench.read(llama(2))
    bench.pages.show("/metrics", "busy", 503)
    for _ in range(18):
        assert bench.read() == []
    bench.targets = []
    assert bench.read() == [silence(2, 21)]


def test_servers_without_a_page_are_silent_and_others_without_gpus_are_not(bench: Bench) -> None:
    """Ollama on two GPUs, and a remote server of which no GPU of this host is known. No one is asked in vain."""
    bench.targets = [
        EngineTarget(name="ollama", url="", devices=("GPU-a", "GPU-b"), found=True),
        EngineTarget(name="remote", url=f"{bench.pages.url}/none"),
    ]
    assert [reading for _ in range(12) for reading in bench.read()] == [
        silence(1, 11, "GPU-a", "GPU-b", server="ollama")
    ]
    states = {each.device: (each.state, "nothing is learned" in each.detail) for each in bench.meter.health().devices}
    assert states == {"ollama": ("waiting", True), "remote": ("not_responding", False)}
    finding, _ = diagnose(bench.targets)
    assert (finding.state, "GPU-a, GPU-b" in finding.what) == ("missing", True)


def test_a_server_without_a_page_is_silent_from_the_look_before_to_the_last(bench: Bench) -> None:
    """Ollama loads a model between the looks at 11 and 21 s, and unloads it between those at 31 and 41 s."""
    ollama, told = EngineTarget(name="ollama", url="", devices=("GPU-b",), found=True), []
    for second in range(1, 43):
        bench.targets = [ollama] * (15 <= second < 37)
        told += bench.read()
    assert told == [silence(start, start + 10, "GPU-b", server="ollama") for start in (11, 21, 31)]


def test_a_reset_of_a_long_interval_is_told_as_silent(bench: Bench) -> None:
    """12 s between two pages, in which the server began anew: nobody knows what it did."""
    bench.read(llama(100))
    assert bench.read(llama(7), after=12.0) == [silence(1, 13)]
    assert bench.events == {"reset": 1}


def test_a_server_that_is_busy_for_some_seconds_loses_nothing(bench: Bench) -> None:
    """503 for a while: what it did meanwhile is one longer interval. It is asked again after 2 s."""
    bench.read(llama(1))
    assert bench.read("busy", status=503) == []
    assert bench.state[0] == "not_responding"
    assert "HTTP status 503" in bench.state[1]
    assert bench.read(llama(5), after=1.0) == []
    (reading,) = bench.read(after=1.0)
    assert (reading.start - T0, reading.end - T0, reading.steps) == (1.0, 4.0, 4.0)
    assert (bench.state, bench.events) == (("ok", ""), {"not_answering": 1})


def test_a_server_that_does_not_answer_is_asked_ever_more_rarely(bench: Bench) -> None:
    """After 2, 4, 8, .. and then every 60 s."""
    bench.read("no", status=404)
    for _ in range(300):
        bench.read()
    assert len(bench.pages.asked) == 9  # at 1, 3, 7, 15, 31, 63, 123, 183 and 243 s of 301
    assert LONGEST_PAUSE_SECONDS == 60.0
    assert bench.events == {"not_answering": 1}
    assert "--enable-metrics" in bench.state[1]


def test_one_that_was_found_and_never_gave_a_page_is_no_fault(bench: Bench) -> None:
    """SGLang without --enable-metrics is healthy: waiting, and why. Once it gave a page, its silence is a fault."""
    bench.targets[0] = replace(bench.targets[0], found=True)
    bench.read("no", status=404)
    assert bench.state[0] == "waiting"
    assert "--enable-metrics" in bench.state[1]
    assert bench.events == {"not_answering": 1}
    bench.read(llama(1), after=2.0)
    assert bench.state == ("waiting", "")
    bench.read("busy", status=503)
    assert bench.state[0] == "not_responding"
    assert bench.events == {"not_answering": 2}


def test_a_server_that_hangs_holds_up_the_others_for_a_second_once(bench: Bench) -> None:
    """It is asked again later; its neighbour is read meanwhile."""

    def hang(_handler: BaseHTTPRequestHandler) -> None:
        time.sleep(TIMEOUT_SECONDS + 1.0)

    bench.pages.answers["/hangs"] = hang
    bench.targets.append(EngineTarget(name="a", url=f"{bench.pages.url}/hangs"))
    bench.read(llama(1))
    assert [each.steps for each in bench.read(llama(2))] == [1.0]
    assert [path for path, _ in bench.pages.asked].count("/hangs") == 1
    states = {device.device: device.state for device in bench.meter.health().devices}
    assert states == {"s-1": "ok", "a": "not_responding"}


def test_an_address_that_nobody_thought_of_stops_no_other_server(bench: Bench) -> None:
    """A name's label has at most 63 letters, a host no space: the libraries raise what is no failure to answer."""
    bench.targets[:0] = [
        EngineTarget(name="long", url=f"http://{'a' * 64}:8000/metrics"),
        EngineTarget(name="space", url="http://a b:8000/metrics"),
    ]
    bench.read(llama(1))
    assert [(each.server, each.steps) for each in bench.read(llama(4))] == [("s-1", 3.0)]
    health = {each.device: each for each in bench.meter.health().devices}
    assert {name: each.state for name, each in health.items()} == {"long": "broken", "space": "broken", "s-1": "ok"}
    assert "InvalidURL" in health["space"].detail
    assert bench.meter.health().events == {("long", "not_answering"): 1, ("space", "not_answering"): 1}


def test_a_look_for_servers_that_fails_leaves_those_that_are_known(bench: Bench) -> None:
    """Whatever in the host's processes it was: the next look is 10 s later."""
    bench.read(llama(1))
    bench.fault = ValueError("a command line")
    found = [each.steps for at in range(2, 23) for each in bench.read(llama(at))]
    assert found == [1.0] * 21
    assert bench.events == {"look_failed": 2}


def test_a_time_of_5_000_digits_spoils_its_line_alone(bench: Bench) -> None:
    """int() refuses it: that figure is not told, the others are, and the next page is as before."""
    bench.read(llama(1))
    assert [(each.steps, each.prefill_tokens) for each in bench.read(llama(f"2 {'1' * 5_000}"))] == [(None, 0.0)]
    assert bench.read(llama(3))[0].steps is None
    assert [each.steps for each in bench.read(llama(5))] == [2.0]
    assert bench.state == ("ok", "")


def test_a_metric_that_is_renamed_is_counted_once_and_never_a_number(bench: Bench) -> None:
    """A server that was exchanged for a newer one: what it still tells goes on."""
    bench.read(llama(1))
    bench.read(llama(2))
    renamed = llama(3, 110).replace("n_decode_total", "n_decode_calls_total")
    assert [(each.steps, each.prefill_tokens) for each in bench.read(renamed)] == [(None, 10.0)]
    assert [(each.steps, each.prefill_tokens) for each in bench.read(renamed)] == [(None, 0.0)]
    assert bench.events == {"metric_missing": 1}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "many"])
def test_a_value_that_is_none_is_counted_once_and_never_a_number(bench: Bench, value: str) -> None:
    """The intervals on both sides of it have no steps; the others' figures stand."""
    bench.read(llama(1))
    for expected in (None, None):
        assert [(each.steps, each.prefill_tokens) for each in bench.read(llama(value))] == [(expected, 0.0)]
    assert bench.state == ("ok", "its page has values that are none: llamacpp:n_decode_total")
    assert bench.events == {"bad_value": 1, "metric_missing": 1}
    assert [each.steps for each in bench.read(llama(5))] == [None]
    assert [each.steps for each in bench.read(llama(9))] == [4.0]
    assert bench.state == ("ok", "")


def test_a_clock_that_is_set_moves_no_interval_s_length(bench: Bench) -> None:
    """An hour back: the second is a second, at the new time."""
    bench.read(llama(1))
    bench.clock.set_by = -3_600.0
    (reading,) = bench.read(llama(2))
    assert (reading.start - T0, reading.end - T0) == (-3_599.0, -3_598.0)
    assert bench.events == {"clock_step": 1}


def test_a_page_of_something_else_is_named(bench: Bench) -> None:
    """Another service on that port is asked ever more rarely, and is no server."""
    assert bench.read("<html>hello</html>") == []
    assert "no counter of vLLM" in bench.state[1]
    assert bench.events == {"not_answering": 1}


def test_servers_come_and_go(bench: Bench) -> None:
    """Looked for every 10 s; one that is back begins anew. What it did at both ends is not known."""
    bench.read(llama(1))
    targets, bench.targets = bench.targets, []
    found = [bench.read() for _ in range(10)]
    assert found[-1] == [silence(10, 11)]
    assert bench.meter.health().devices == ()
    assert bench.pages.connections == 1
    bench.targets = targets
    assert bench.read(llama(50), after=10.0) == [silence(11, 21)]
    assert [each.steps for each in bench.read(llama(52))] == [2.0]
    assert [each.steps for each in bench.read(llama(55))] == [3.0]


def test_devices_that_become_known_later_are_told_from_then_on(bench: Bench) -> None:
    """A server has no memory on a GPU until it has loaded its model; nothing is lost over it."""
    bench.targets[0] = EngineTarget(name="s-1", url=bench.targets[0].url)
    bench.read(llama(1))
    bench.targets[0] = EngineTarget(name="s-1", url=bench.targets[0].url, devices=("GPU-b",))
    found = [each for at in range(2, 13) for each in bench.read(llama(at))]
    assert [each.devices for each in (found[0], found[-1])] == [(), ("GPU-b",)]
    assert [each.steps for each in found] == [1.0] * 11


def test_replicas_on_other_ports_are_other_servers(bench: Bench) -> None:
    """Each with counters of its own."""
    with served_pages() as other:
        bench.targets.append(EngineTarget(name="s-2", url=f"{other.url}/metrics", model="told"))
        other.show("/metrics", llama(1_000))
        bench.read(llama(1))
        other.show("/metrics", llama(1_007))
        assert [(each.server, each.steps) for each in bench.read(llama(3))] == [("s-1", 2.0), ("s-2", 7.0)]


def test_one_connection_is_kept_open(bench: Bench) -> None:
    """A look is one request."""
    for at in range(5):
        bench.read(llama(at))
    assert bench.pages.connections == 1


def test_doctor_says_what_each_server_tells(bench: Bench) -> None:
    """Asked once: its kind, its models, whether it counts its steps; and what mends a page that is none."""
    bench.pages.show("/metrics", VLLM)
    bench.pages.show("/tgi", TGI.replace("tgi_queue_size 2", "tgi_queue_size NaN"))
    url = bench.pages.url
    targets = [
        *bench.targets,
        EngineTarget(name="s-2", url=f"{url}/tgi", model="bloom"),
        EngineTarget(name="s-3", url=f"{url}/none"),
    ]
    found = {each.subject: each for each in diagnose(targets)}
    assert (found["s-1"].state, found["s-1"].what) == ("ok", "vllm, model llama, steps are counted")
    assert found["s-2"].what == "tgi, model bloom, steps are counted; cannot be read: tgi_queue_size"
    assert [found[each].state for each in ("s-2", "s-3")] == ["warning", "warning"]
    assert "HTTP status 404" in found["s-3"].what
    (nothing,) = diagnose([])
    assert (nothing.state, nothing.subject) == ("missing", "servers")
