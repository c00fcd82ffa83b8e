"""The `config.json` of the models that this host's servers were told to load. In: processes. Out: facts, or why none.

    vllm serve /models/llama                      /models/llama/config.json
    vllm serve org/name                           ~/.cache/huggingface/hub/models--org--name/snapshots/*/config.json

~ is the home of the process's user; `--download-dir` and `--huggingface-hub-cache` name another cache. Nothing else is
opened, no environment is read, and at most 1 MiB of it. Of a server in a container the path is looked for below
<procfs>/PID/root, which root alone may enter.
"""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from pwd import getpwuid
from typing import Final

import msgspec

from collectors.errors import Rejected
from collectors.model_config import LARGEST_CONFIG_BYTES, facts_in
from collectors.proc_table import command_line
from collectors.readings import ModelFacts
from collectors.served_models import served_by
from collectors.servers import KnownServers, Server, names_itself

CONFIG: Final = "config.json"
_HUB: Final = ".cache/huggingface/hub"
_CACHES: Final = ("--download-dir", "--download_dir", "--huggingface-hub-cache")
_REPOSITORY: Final = re.compile(r"[\w][\w.-]{0,95}(?:/[\w][\w.-]{0,95})?")
_SNAPSHOTS: Final = "snapshots"
_MOST_SNAPSHOTS: Final = 64


class ModelTold(msgspec.Struct, frozen=True, kw_only=True):
    """What one server's model folder gave: facts for each name that it serves, or `why` not.

    `model` is what it was told to load, `names` what requests may ask for; `path` is the file, "" where none is named.
    """

    server: str
    model: str
    names: tuple[str, ...]
    path: str = ""
    facts: tuple[ModelFacts, ...] = ()
    why: str = ""


class ModelFolders:
    """Looked up with each call; a file that was understood is read once for each process."""

    def __init__(self, servers: KnownServers, *, procfs: Path = Path("/proc")) -> None:
        self._servers, self._procfs = servers, procfs
        self._told: dict[tuple[int, float], ModelTold | None] = {}

    def look(self) -> list[ModelTold]:
        """One for each process that names a model, by server and model; those of one server that agree are one."""
        processes = self._servers.servers()
        self._told = {_life(each): self._known(each) for each in processes}
        told = {(each.server, each.model): each for each in self._told.values() if each is not None}
        return [told[key] for key in sorted(told)]

    def _known(self, process: Server) -> ModelTold | None:
        known = self._told.get(_life(process))
        return known if known is not None and not known.why else self._read(process)

    def _read(self, process: Server) -> ModelTold | None:
        words = command_line(self._procfs, process.pid)
        served = served_by(words)
        if not served.model or names_itself(words):
            return None
        path, why, facts = None, "", None
        try:
            path = self._config_of(process.pid, served.model, words)
            owners = {0, os.geteuid(), os.stat(f"{self._procfs}/{process.pid}").st_uid}
            text = read_config(path, owners)
            facts = facts_in(text, kv_bytes=_kv_value_bytes(words), quantized=_option(words, "--quantization"))
        except (Rejected, OSError) as error:
            why = str(error) if isinstance(error, Rejected) else f"unreadable: {error.strerror or type(error).__name__}"
            facts = None
        return ModelTold(
            server=process.name,
            model=served.model,
            names=served.models,
            path=str(path or ""),
            facts=tuple(msgspec.structs.replace(facts, name=name) for name in served.models) if facts else (),
            why=why,
        )

    def _config_of(self, pid: int, model: str, words: Sequence[str]) -> Path:
        ours, theirs = _root_device(self._procfs, "self"), _root_device(self._procfs, pid)
        root = Path("/") if ours is None or theirs is None or ours == theirs else self._procfs / str(pid) / "root"
        if model.startswith("/"):
            folder = root / model.lstrip("/")
        elif _REPOSITORY.fullmatch(model) and ".." not in model:
            told = next((word for option in _CACHES if (word := _option(words, option))), "")
            uid = os.stat(f"{self._procfs}/{pid}").st_uid
            folder = root / (told or f"{_home(uid)}/{_HUB}").lstrip("/") / f"models--{model.replace('/', '--')}"
        else:
            raise Rejected("no_folder", "the model is named by neither an absolute path nor a repository")
        return _newest_snapshot(folder / _SNAPSHOTS) if folder.name.startswith("models--") else folder / CONFIG


def read_config(path: Path, owners: set[int]) -> bytes:
    """The file's bytes. Raises OSError, or Rejected for a pipe, what is huge, another user's, or a link elsewhere.

    A cache links each file to `blobs/` beside `snapshots/`; a link to anything else, but to a config.json, is not
    followed to its content.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Rejected("not_a_file", "is no regular file")
        if found.st_uid not in owners:
            raise Rejected("foreign_owner", f"belongs to user {found.st_uid}, neither root's nor the server's nor ours")
        if found.st_size > LARGEST_CONFIG_BYTES:
            raise Rejected("too_large", f"above {LARGEST_CONFIG_BYTES} bytes")
        real = Path(os.path.realpath(path))
        if real.name != CONFIG and not (real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")):
            raise Rejected("leads_elsewhere", "is a link to another kind of file")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(LARGEST_CONFIG_BYTES + 1)
    finally:
        os.close(descriptor)


def _newest_snapshot(snapshots: Path) -> Path:
    """That of the newest of the first 64; usually there is one."""
    found: list[tuple[float, str]] = []
    with os.scandir(snapshots) as entries:
        for entry in entries:
            found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
            if len(found) == _MOST_SNAPSHOTS:
                break
    if not found:
        raise Rejected("no_folder", "the cache holds no snapshot")
    return snapshots / max(found)[1] / CONFIG


def _root_device(procfs: Path, process: int | str) -> str | None:
    """The device of a process's root, as "major:minor": a container's is another than the host's. None if not told."""
    try:
        with open(f"{procfs}/{process}/mountinfo", "rb", buffering=0) as file:
            text = file.read(1_048_576).decode("utf-8", "replace")
    except OSError:
        return None
    mounts = (line.split() for line in text.splitlines())
    return next((each[2] for each in mounts if len(each) > 4 and each[4] == "/"), None)


def _home(uid: int) -> str:
    try:
        return getpwuid(uid).pw_dir
    except KeyError:
        raise Rejected("no_folder", f"user {uid} has no home, so no cache is known") from None


def _kv_value_bytes(words: Sequence[str]) -> float:
    """Of a value in the KV cache, as the command line tells: --kv-cache-dtype fp8 is 1, else 2."""
    return 1.0 if _option(words, "--kv-cache-dtype").startswith(("fp8", "int8")) else 2.0


def _option(words: Sequence[str], option: str) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""


def _life(process: Server) -> tuple[int, float]:
    return process.pid, process.create_time
