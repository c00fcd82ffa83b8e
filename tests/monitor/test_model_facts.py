"""Model facts in their order: told by a person, of the server's folder, of the table, of the name; each named."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from proc_tree import ProcTree

from collectors.model_folder import ModelFolders
from collectors.readings import Device, HostProfile, ModelFacts
from collectors.servers import KnownServers
from monitor.cli.doctor import doctor
from monitor.config.input_sections import Model
from monitor.config.sections import Config
from monitor.core.attribution.models import token_cost
from monitor.log.codec import Decoder, ReadingBatch, readings_record
from monitor.log.protocol import LogRecord
from monitor.roles.model_folders import ModelFactsRole
from monitor.roles.profile import profile_of

FOLDER = ModelFacts(
    name="chat",
    parameters=30.5e9,
    active_parameters=3.3e9,
    bytes_per_parameter=1.0,
    kv_bytes_per_token=98_304.0,
    source="folder",
)


def profile(*told: Model, found: tuple[ModelFacts, ...] = (FOLDER,)) -> HostProfile:
    """The host's, with [[models]] of the configuration and what was found."""
    return profile_of(Config(models=told), "h", [Device(id="g0", kind="gpu")], found)


def test_a_folders_facts_go_with_the_profile() -> None:
    """For models of which the configuration says nothing; they price the same wherever the record is read."""
    sent = profile(Model(name="other", parameters=1e9))
    assert [model.name for model in sent.models] == ["other", "chat"]
    record = readings_record(ReadingBatch(profile=sent, readings=()), 1.0)
    read = Decoder().decode(
        LogRecord(stream="readings", offset=1, stamp=1.0, key="h", schema=record.schema, body=record.body)
    )
    assert isinstance(read, ReadingBatch)
    assert read.profile.models[1] == FOLDER
    cost = token_cost("chat", read.profile.models[1])
    assert (cost.flops_per_token, cost.weight_bytes, cost.all_weight_bytes) == (6.6e9, 3.3e9, 30.5e9)
    assert (cost.source, cost.kv_estimated) == ("folder", False)


def test_what_a_person_says_comes_first_and_the_folder_fills_what_it_leaves_open() -> None:
    """A size that is told is whole: the folder's active parameters are not laid beside it."""
    (facts,) = profile(Model(name="chat", parameters=8e9)).models
    assert facts == ModelFacts(name="chat", parameters=8e9, bytes_per_parameter=1.0, kv_bytes_per_token=98_304.0)
    assert token_cost("chat", facts).source == "given"
    (facts,) = profile(Model(name="chat", kv_bytes_per_token=49_152.0)).models
    assert facts == msgspec.structs.replace(FOLDER, kv_bytes_per_token=49_152.0)


@pytest.mark.parametrize(
    ("name", "facts", "source", "estimated"),
    [
        ("Llama-3.1-8B", FOLDER, "folder", False),
        ("Llama-3.1-8B", None, "table", False),
        ("Llama-3.1-8B", ModelFacts(name="", parameters=8e9, source="folder"), "folder", False),
        ("mine", ModelFacts(name="", parameters=8e9, source="folder"), "folder", True),
        ("mine-8b", None, "name", True),
        ("mine", None, "unknown", False),
    ],
)
def test_sources_in_their_order(name: str, facts: ModelFacts | None, source: str, *, estimated: bool) -> None:
    """KV bytes that nothing gives are estimated from the size, and said to be."""
    cost = token_cost(name, facts)
    assert (cost.source, cost.kv_estimated) == (source, estimated)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A <procfs> of three servers: one whose folder is read, one whose folder is bad, one of a model nobody knows."""
    (tmp_path / "proc").mkdir()
    tree = ProcTree(tmp_path / "proc")
    shapes = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    }
    for name, text in (("good", json.dumps(shapes)), ("bad", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    tree.start(10, f"vllm serve {tmp_path}/good --served-model-name a --port 8001")
    tree.start(20, f"vllm serve {tmp_path}/bad --served-model-name qwen3-8b --port 8002")
    tree.start(30, f"vllm serve {tmp_path}/none --served-model-name c --port 8003")
    return tree.root


def test_the_role_knows_what_folders_tell_and_goes_on_without_the_others(host: Path) -> None:
    """One of three."""
    role = ModelFactsRole(ModelFolders(KnownServers(procfs=host), procfs=host))
    assert role.now() == ()
    role.look()
    assert [(facts.name, facts.source) for facts in role.now()] == [("a", "folder")]


def test_doctor_names_the_source_of_each_models_facts(host: Path, tmp_path: Path) -> None:
    """And why a folder gave none, with what mends it."""
    config = tmp_path / "config.toml"
    config.write_text(f'[collect]\nprocfs = "{host}"\n[collect.nvml]\nenabled = false\n')
    shown = json.loads(CliRunner().invoke(doctor, ["--json", "--config", str(config)]).stdout)
    found = [each for each in _findings(shown) if each.get("area") == "models"]
    assert [(each["subject"], each["state"]) for each in found] == [("a", "ok"), ("qwen3-8b", "ok"), ("c", "warning")]
    assert found[0]["what"] == "8.03 billion active parameters by its own folder, 131,072 KV bytes a token"
    assert found[1]["what"].startswith("8.19 billion active parameters by the table of open models, 147,456 KV bytes")
    assert found[1]["what"].endswith("bad/config.json: not_json: cannot be decoded")
    assert found[2]["mend"] == 'parameters of name = "c" under [[models]]'


def _findings(shown: object) -> list[dict[str, str]]:
    if isinstance(shown, dict):
        return [shown] if "subject" in shown else [each for value in shown.values() for each in _findings(value)]
    return [each for value in shown for each in _findings(value)] if isinstance(shown, list) else []
