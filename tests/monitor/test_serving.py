"""Where a model is served: deployments as stated, servers as found, each from a minute after it stands in the log."""

from pathlib import Path

import pytest
from proc_tree import ProcTree

from collectors.clock import SystemClock
from collectors.servers import KnownServers
from monitor.config.input_sections import Deployment as Configured
from monitor.core.facts import Facts
from monitor.core.serving import Deployment, FoundServer, HostServers, Place
from monitor.log.codec import Decoder, deployment_record, servers_record
from monitor.log.protocol import Append, LogRecord
from monitor.log.sqlite import SqliteLog
from monitor.roles.control import FactsReader
from monitor.roles.deployments import state_deployments
from monitor.roles.servers_found import ServersFound

CHAT = Deployment(name="chat", model="llama", hosts=("a", "b"))


def found(host: str, *models: str, devices: tuple[str, ...] = ()) -> HostServers:
    return HostServers(host=host, servers=(FoundServer(name="vllm-8000", models=models, devices=devices),))


def test_nothing_known_places_nothing() -> None:
    """Without facts there is no place."""
    assert list(Facts(()).serving.places("llama", "", 0.0)) == []


def test_a_deployment_by_name_or_by_model() -> None:
    """Named, it counts whatever the model; unnamed, its model decides; a named other deployment is no match."""
    serving = Facts([(1_000.0, CHAT)]).serving
    both = [Place(host=host, weight=0.5, deployment="chat") for host in ("a", "b")]
    assert serving.places("llama", "", 2_000.0) == both
    assert serving.places("llama-alias", "chat", 2_000.0) == both
    assert list(serving.places("llama", "batch", 2_000.0)) == []
    assert list(serving.places("llama-alias", "", 2_000.0)) == []


def test_in_force_a_minute_after_its_log_time_and_the_first_before() -> None:
    """A move stated at 1 000 s holds from 1 060 s on; what was stated first holds for all time before."""
    moved = Deployment(name="chat", model="llama", hosts=("c",))
    serving = Facts([(500.0, CHAT), (1_000.0, moved)]).serving
    hosts = {at: [place.host for place in serving.places("llama", "", at)] for at in (0.0, 1_059.9, 1_060.0)}
    assert hosts == {0.0: ["a", "b"], 1_059.9: ["a", "b"], 1_060.0: ["c"]}


def test_withdrawn() -> None:
    """A deployment without hosts is none, and the servers found decide."""
    serving = Facts(
        [(0.0, CHAT), (0.0, found("z", "llama")), (1_000.0, Deployment(name="chat", model="llama", hosts=()))]
    )
    assert [place.host for place in serving.serving.places("llama", "", 100.0)] == ["a", "b"]
    assert [place.host for place in serving.serving.places("llama", "", 2_000.0)] == ["z"]


def test_servers_share_by_hosts_and_give_their_devices() -> None:
    """Two hosts that serve a model get half each; devices are known where every server of it tells them."""
    serving = Facts(
        [(0.0, found("b", "llama")), (0.0, found("a", "llama", "alias", devices=("GPU-1", "GPU-2")))]
    ).serving
    assert serving.places("llama", "", 100.0) == [
        Place(host="a", weight=0.5, devices=("GPU-1", "GPU-2")),
        Place(host="b", weight=0.5),
    ]
    assert [place.host for place in serving.places("alias", "", 100.0)] == ["a"]


def test_a_deployment_takes_its_devices_from_the_servers() -> None:
    """Where [[deployments]] names no devices, those of the model's servers on each host are meant."""
    serving = Facts([(0.0, CHAT), (0.0, found("a", "llama", devices=("GPU-7",)))]).serving
    assert [place.devices for place in serving.places("llama", "", 100.0)] == [("GPU-7",), None]


@pytest.mark.parametrize(
    "record",
    [deployment_record(CHAT), servers_record(found("a", "llama", devices=("GPU-1",)))],
    ids=["stated", "found"],
)
def test_facts_come_back_from_the_log(record: Append) -> None:
    """What is written is read."""
    read = Decoder().decode(
        LogRecord(stream="facts", offset=1, stamp=0.0, key=record.key, schema=record.schema, body=record.body)
    )
    assert read in (CHAT, found("a", "llama", devices=("GPU-1",)))


def test_stated_once_changed_and_withdrawn(tmp_path: Path) -> None:
    """The configuration is stated where it differs from what the log holds, and only there."""
    log = SqliteLog(tmp_path / "log.db")
    facts = FactsReader(log)
    chat, batch = Configured(name="chat", model="m", hosts=("a",)), Configured(name="batch", model="n", hosts=("b",))
    assert state_deployments(facts(), log, [chat, batch], 1_000.0) == ["chat", "batch"]
    assert state_deployments(facts(), log, [chat, batch], 1_001.0) == []
    assert state_deployments(facts(), log, [chat], 1_002.0) == ["batch"]
    assert [each.name for each in facts().serving.deployments(9e9)] == ["chat"]
    log.close()


def test_servers_found_are_stated_when_seen_twice(tmp_path: Path) -> None:
    """Models come from the command line, devices from who has memory on which GPU; a restart states nothing again."""
    (tmp_path / "proc").mkdir()
    tree = ProcTree(tmp_path / "proc")
    tree.start(1, "init", parent=0)
    tree.start(50, "vllm serve qwen/q --port 8000 -tp 2")
    tree.start(51, "VLLM::Worker_TP0", parent=50)
    log = SqliteLog(tmp_path / "log.db")
    tick = iter(range(0, 10_000, 40))
    on_devices = [("GPU-2", 51, 1e9), ("GPU-1", 51, 1e9), ("GPU-3", 999, 1e9)]

    def watcher() -> ServersFound:
        servers = KnownServers(procfs=tree.root, boot_seconds=lambda: float(next(tick)))
        return ServersFound(log, servers, lambda: on_devices, host="gpu-1", clock=SystemClock(), procfs=tree.root)

    first = watcher()
    stated = []
    for _ in range(3):
        first.step()
        stated.append(len(log.facts()))
    assert stated == [0, 1, 1]
    serving = FactsReader(log)().serving
    expected = FoundServer(name="vllm-8000", models=("qwen/q",), devices=("GPU-1", "GPU-2"), tensor_parallel_size=2)
    assert serving.servers("gpu-1", 9e9) == HostServers(host="gpu-1", servers=(expected,))
    again = watcher()
    again.step()
    again.step()
    assert len(log.facts()) == 1
    for pid in (51, 50):
        tree.end(pid)
    again.step()
    again.step()
    assert FactsReader(log)().serving.servers("gpu-1", 9e12) == HostServers(host="gpu-1", servers=())
    log.close()
