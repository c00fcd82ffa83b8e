"""Which config.json is read for a server's command line, and what is passed by; over a <procfs> of a test."""

import json
import os
from pathlib import Path

import pytest
from proc_tree import ProcTree

from collectors.model_config import LARGEST_CONFIG_BYTES
from collectors.model_folder import ModelFolders, ModelTold, read_config
from collectors.servers import KnownServers

CONFIG = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    (tmp_path / "proc").mkdir()
    return ProcTree(tmp_path / "proc")


def write(folder: Path, config: dict[str, object] = CONFIG) -> Path:
    """A model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def look(tree: ProcTree) -> list[ModelTold]:
    """What the folders of the servers there are now tell."""
    return ModelFolders(KnownServers(procfs=tree.root), procfs=tree.root).look()


def why(tree: ProcTree) -> str:
    """Why nothing is taken for the one server."""
    (told,) = look(tree)
    assert told.facts == ()
    return told.why


def test_a_folder_that_the_command_line_names(tree: ProcTree, tmp_path: Path) -> None:
    """Its facts, under each name that the server answers to."""
    folder = write(tmp_path / "models" / "llama")
    tree.start(10, f"vllm serve {folder} --served-model-name chat chat-large --port 8001 --kv-cache-dtype fp8_e4m3")
    tree.start(11, "vllm-worker", parent=10)
    (told,) = look(tree)
    assert (told.server, told.path, told.why) == ("vllm-8001", f"{folder}/config.json", "")
    assert [facts.name for facts in told.facts] == ["chat", "chat-large"]
    assert told.facts[0].parameters == pytest.approx(8.03e9, rel=0.001)
    assert (told.facts[0].kv_bytes_per_token, told.facts[0].source) == (65_536.0, "folder")


def test_a_repository_in_the_cache(tree: ProcTree, tmp_path: Path) -> None:
    """A snapshot is links to blobs; of several the newest counts."""
    cache = tmp_path / "hub" / "models--org--name"
    for age, snapshot, layers in ((200, "aaaa", 16), (100, "bbbb", 32)):
        blob = cache / "blobs" / snapshot
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
        folder = cache / "snapshots" / snapshot
        folder.mkdir(parents=True)
        (folder / "config.json").symlink_to(f"../../blobs/{snapshot}")
        os.utime(folder, (1e9 - age, 1e9 - age))
    tree.start(10, f"vllm serve org/name --download-dir {tmp_path}/hub")
    tree.start(20, f"python3 -m sglang.launch_server --model-path {cache} --port 30001")
    by_name, by_path = sorted(look(tree), key=lambda told: told.model, reverse=True)
    for told, name in ((by_name, "org/name"), (by_path, str(cache))):
        assert told.path == str(cache / "snapshots" / "bbbb" / "config.json")
        assert [(facts.name, facts.kv_bytes_per_token) for facts in told.facts] == [(name, 131_072.0)]


def test_servers_that_name_no_folder_say_nothing(tree: ProcTree) -> None:
    """One that loads what it is asked for; a worker that has its server's words no more."""
    tree.start(10, "ollama serve")
    tree.start(11, "VLLM::EngineCore", parent=10)
    assert look(tree) == []


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("/nowhere/llama", "unreadable: No such file or directory"),
        ("../models/llama", "no_folder"),
        ("org/../../etc", "no_folder"),
        ("a b", "unreadable"),
        ("./here", "no_folder"),
    ],
)
def test_a_model_that_is_not_found_is_named(tree: ProcTree, model: str, reason: str) -> None:
    """Nothing but an absolute path and a repository's name is looked for."""
    tree.start(10, f"vllm serve {model} --download-dir /nowhere")
    assert why(tree).startswith(reason)


def test_a_bad_file_is_named_and_looked_at_again(tree: ProcTree, tmp_path: Path) -> None:
    """While it is written; once it was understood it is read no more."""
    folder = write(tmp_path / "m")
    (folder / "config.json").write_text('{"hidden_size"')
    tree.start(10, f"vllm serve {folder}")
    folders = ModelFolders(KnownServers(procfs=tree.root), procfs=tree.root)
    assert [told.why for told in folders.look()] == ["not_json: cannot be decoded"]
    write(folder)
    assert [len(told.facts) for told in folders.look()] == [1]
    (folder / "config.json").unlink()
    assert [len(told.facts) for told in folders.look()] == [1]


def test_what_is_no_such_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would wait for ever; a link to a secret, another user's file, a huge one."""
    ours = {os.geteuid()}
    pipe = tmp_path / "pipe" / "config.json"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    secret = tmp_path / "secret"
    secret.write_text("{}")
    link = tmp_path / "config.json"
    link.symlink_to(secret)
    huge = write(tmp_path / "huge") / "config.json"
    with huge.open("ab") as file:
        file.truncate(LARGEST_CONFIG_BYTES + 1)
    fine = write(tmp_path / "fine") / "config.json"
    for path, owners, reason in (
        (pipe, ours, "not_a_file"),
        (link, ours, "leads_elsewhere"),
        (huge, ours, "too_large"),
        (fine, {os.geteuid() + 1}, "foreign_owner"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_config(path, owners)
    assert json.loads(read_config(fine, ours)) == CONFIG


def test_of_a_server_in_a_container_its_own_root_is_looked_at(tree: ProcTree, tmp_path: Path) -> None:
    """The same path on the host may be another model's."""
    folder = write(tmp_path / "models" / "llama", CONFIG | {"num_hidden_layers": 1})
    tree.start(10, f"vllm serve {folder}")
    (tree.root / "self").mkdir()
    for process, device in (("self", "8:1"), ("10", "0:52")):
        (tree.root / process / "mountinfo").write_text(f"22 1 {device} / / rw,relatime shared:1 - ext4 /dev/x rw\n")
    assert why(tree).startswith("unreadable: No such file")
    write(tree.root / "10" / "root" / str(folder).lstrip("/"))
    (told,) = look(tree)
    assert told.facts[0].kv_bytes_per_token == 131_072.0
