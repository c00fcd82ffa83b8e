"""Engine readings on their way: from a recording or a meter into the log, and into each window that they touch."""

from pathlib import Path

import pytest
from http_pages import served_pages
from msgspec.structs import replace
from proc_tree import ProcTree

from collectors.clock import SystemClock
from collectors.engine_targets import EngineTarget
from collectors.errors import Rejected
from collectors.readings import Device, EngineReading, HostProfile
from collectors.recording import EngineSample, Sample, load_recording, write_recording
from collectors.units import SECONDS_PER_DAY
from monitor.config.load import load_config
from monitor.core.book import Book
from monitor.core.membership import FUTURE_LIMIT_SECONDS, Accounting
from monitor.ledger.entering import LENGTH_LIMIT_SECONDS, Entering, Touch
from monitor.ledger.late import LateOnHost
from monitor.log.codec import Decoder, ReadingBatch, readings_record
from monitor.log.protocol import Append, DeadLetter, LogRecord
from monitor.log.sqlite import SqliteLog
from monitor.roles.collect import CollectRole
from monitor.roles.meters import engine_targets, meters_of, servers_of
from monitor.roles.replay import ReplayRole

T = SECONDS_PER_DAY * 20_000.0
"""The start of a window of 10 s."""
WINDOW = int(T // 10)
TERMS = Accounting()
PROFILE = HostProfile(host="h", devices=(Device(id="g0", kind="gpu", idle_watts=50.0),))
ENGINE = EngineReading(server="vllm-8000", model="m", devices=("g0",), start=T + 8, end=T + 12, steps=40.0, running=3.0)


def batch(*engines: EngineReading) -> Append:
    """A batch of these alone."""
    return readings_record(ReadingBatch(profile=PROFILE, readings=(), engines=engines))


def stood(record: Append, at: float) -> LogRecord:
    """That record in the log, `at` seconds from T."""
    return LogRecord(
        stream=record.stream, offset=1, stamp=T + at, key=record.key, schema=record.schema, body=record.body
    )


class Page:
    """A book into which records are entered."""

    def __init__(self) -> None:
        self.book = Book(TERMS, lambda _zone, _at: None)
        self.letters: list[DeadLetter] = []
        self.entering = Entering(TERMS, self.book, self.letters.append)

    def enter(self, record: Append, at: float) -> list[Touch]:
        """What it touched."""
        return list(self.entering.enter(stood(record, at)))


def test_a_reading_is_in_each_window_that_it_touches() -> None:
    """[8, 12) is in the windows [0, 10) and [10, 20), of its host alone."""
    page = Page()
    touches = page.enter(batch(ENGINE), 13)
    assert [(touch.host, touch.windows, touch.entered) for touch in touches] == [
        ("h", range(WINDOW, WINDOW + 2), ENGINE)
    ]
    told = [page.book.engines("h", WINDOW + each, line=T + 14) for each in (-1, 0, 1, 2)]
    assert told == [[], [ENGINE], [ENGINE], []]
    assert page.book.engines("other", WINDOW, line=T + 14) == []


def test_the_line_of_an_account_decides() -> None:
    """What stands at its line or behind it is not in it; what is there twice is there once, from its first time on."""
    page = Page()
    late = replace(ENGINE, server="vllm-8001")
    page.enter(batch(ENGINE), 13)
    page.enter(batch(ENGINE, late), 20)
    assert page.book.engines("h", WINDOW, line=T + 13) == []
    assert page.book.engines("h", WINDOW, line=T + 20) == [ENGINE]
    assert page.book.engines("h", WINDOW, line=T + 21) == [ENGINE, late]


def test_a_wrong_clock_touches_nothing() -> None:
    """An interval that ends hours after its log time, or lasts more than a week, is passed by; its neighbour is not."""
    page = Page()
    ahead = replace(ENGINE, end=T + 13 + FUTURE_LIMIT_SECONDS + 1)
    endless = replace(ENGINE, start=T + 12 - LENGTH_LIMIT_SECONDS - 1)
    touches = page.enter(batch(ahead, ENGINE, endless), 13)
    assert [touch.entered for touch in touches] == [ENGINE]


def test_late_ones_are_counted_in_words() -> None:
    """Why a window was restated names them."""
    late = LateOnHost()
    late.note(ENGINE)
    assert late.why() == "1 late reading of a model server's work"
    late.note(ENGINE)
    assert late.why() == "2 late readings of model servers' work"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"end": ENGINE.start}, "engines[0].end"),
        ({"start": float("nan")}, "engines[0].end"),
        ({"server": ""}, "engines[0].server"),
        ({"devices": ("g0", "")}, "engines[0].server or devices"),
        ({"steps": -1.0}, "engines[0].steps"),
        ({"kv_tokens": float("nan")}, "engines[0].kv_tokens"),
        ({"decode_tokens": float("inf")}, "engines[0].decode_tokens"),
        ({"prefill_tokens": 2.0**54}, "engines[0].prefill_tokens"),
    ],
)
def test_one_that_breaks_the_contract_refuses_its_batch(changes: dict[str, object], field: str) -> None:
    """An interval that runs backwards, no name, a figure that is none: bad_value, and the field by name."""
    with pytest.raises(Rejected) as refused:
        Decoder().decode(stood(batch(replace(ENGINE, **changes)), 13))
    assert refused.value.reason == "bad_value"
    assert refused.value.detail.startswith(field)


def test_a_replay_puts_them_into_the_log(tmp_path: Path) -> None:
    """With the readings of their step where there are any, and alone where there are none."""
    samples = [Sample(T + at, "g0", power_watts=100.0) for at in (0, 1)]
    engines = [EngineSample(T + at, "vllm-8000", "m", ("g0",), steps_total=10.0 * at) for at in range(3)]
    write_recording(tmp_path / "run", PROFILE, samples, [], engines)
    log = SqliteLog(tmp_path / "log")
    role = ReplayRole(log, [load_recording(tmp_path / "run")], TERMS)
    role.append(list(role.steps()))
    decoder = Decoder()
    batches = [
        told
        for record in log.read({"readings": 0, "usage": 0}, 100)
        if isinstance(told := decoder.decode(record), ReadingBatch)
    ]
    assert [(len(told.readings), [each.steps for each in told.engines]) for told in batches] == [
        (1, [10.0]),
        (0, [10.0]),
    ]
    log.close()


ONLY_ENGINE = """
[collect]
procfs = "PROC"
[collect.nvml]
enabled = false
[collect.rapl]
enabled = false
[collect.cpu_model]
enabled = false
[collect.processes]
enabled = false
"""


def page(steps: int) -> str:
    return f'vllm:iteration_tokens_total_count{{engine="0",model_name="m"}} {steps}.0\n'


def test_a_server_that_is_found_is_metered_into_the_log(tmp_path: Path) -> None:
    """A node with vLLM needs no configuration: its port is that of its command line."""
    (tmp_path / "proc").mkdir()
    tree = ProcTree(tmp_path / "proc")
    with served_pages() as pages:
        pages.show("/metrics", page(10))
        tree.start(10, f"vllm serve m --port {pages.url.rpartition(':')[2]}")
        (tmp_path / "config.toml").write_text(ONLY_ENGINE.replace("PROC", str(tree.root)))
        config = load_config(tmp_path / "config.toml", environ={})
        (meter,) = meters_of(config, SystemClock())
        log = SqliteLog(tmp_path / "log")
        role = CollectRole(log, config, [meter], host="h", clock=SystemClock())
        assert meter.read() == []
        pages.show("/metrics", page(41))
        role.take(meter, meter.read())
        role._write()
        meter.close()
    decoder = Decoder()
    batches = [decoder.decode(record) for record in log.read({"readings": 0}, 100)]
    (told,) = [engine for each in batches if isinstance(each, ReadingBatch) for engine in each.engines]
    assert (told.server, told.model, told.steps) == (f"vllm-{pages.url.rpartition(':')[2]}", "m", 31.0)
    log.close()


def test_servers_are_asked_as_they_are_configured(tmp_path: Path) -> None:
    """An address alone is named after itself and asked for its usual page; a table says more."""
    (tmp_path / "config.toml").write_text(
        '[collect.engine]\ndiscover = false\nurls = ["http://10.0.0.5:8000"]\n'
        '[[collect.engine.servers]]\nurl = "http://10.0.0.6:8080/m"\nname = "llama"\nmodel = "phi"\n'
        'devices = ["GPU-a"]\n'
    )
    config = load_config(tmp_path / "config.toml", environ={})
    assert engine_targets(config, servers_of(config)).now() == [
        EngineTarget(name="10.0.0.5:8000", url="http://10.0.0.5:8000/metrics"),
        EngineTarget(name="llama", url="http://10.0.0.6:8080/m", model="phi", devices=("GPU-a",)),
    ]
