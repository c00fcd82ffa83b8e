"""Which models a model server serves, as its command line tells it. In: its words. Out: names, and over how many GPUs.

    vllm serve meta-llama/Llama-2-70b-chat-hf --served-model-name chat -tp 4     ("chat",), 4
    python3 -m sglang.launch_server --model-path=/models/qwen --tp-size 2        ("/models/qwen",), 2
    llama-server -m phi-4-q4.gguf                                                ("phi-4-q4.gguf", "phi-4-q4"), 1

Servers that load what they are asked for (ollama, triton) tell nothing.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

import msgspec

_SERVED_NAMES: Final = ("--served-model-name", "--served_model_name", "--alias", "-a", "--model-name")
_MODELS: Final = ("--model", "--model-path", "--model-id", "--model_path", "--hf-repo", "-hf", "-m")
_PARALLEL: Final = (
    "--tensor-parallel-size",
    "--tensor_parallel_size",
    "-tp",
    "--tp",
    "--tp-size",
    "--tp_size",
    "--num-shard",
)
_SUBCOMMANDS: Final = ("serve", "run", "api_server")
"""Behind them the model stands without an option before it (vllm, aphrodite, lmdeploy, mlc_llm, trtllm-serve)."""
_TAKES_MODEL: Final = ("vllm", "aphrodite", "lmdeploy", "mlc_llm", "trtllm-serve")
_WEIGHTS: Final = (".gguf", ".bin", ".safetensors")
_MOST_TOGETHER: Final = 1_024


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """`models`: every name that requests may ask for, none where the command line does not tell.

    `model` is what it was told to load, a folder or a repository's name; "" where that is not told.
    """

    models: tuple[str, ...] = ()
    model: str = ""
    tensor_parallel_size: int = 1


def served_by(words: Sequence[str]) -> Served:
    """What the server that this command line starts serves."""
    names = _values(words, _SERVED_NAMES, many=True)
    loaded = _values(words, _MODELS[:-1]) or _values(_behind_module(words), _MODELS[-1:]) or _positional(words)
    models = names or list(loaded)
    if not names:
        models += [PurePosixPath(model).stem for model in models if model.endswith(_WEIGHTS)]
    model = loaded[0] if loaded else ""
    return Served(
        models=tuple(dict.fromkeys(models)), model=model, tensor_parallel_size=_size(_values(words, _PARALLEL))
    )


def _values(words: Sequence[str], options: Sequence[str], *, many: bool = False) -> list[str]:
    """What the first of these options is given; with `many` all words up to the next option."""
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option not in options:
            continue
        if equals:
            return [value] if value else []
        found = []
        for following in words[index + 1 :]:
            if following.startswith("-"):
                break
            found.append(following)
            if not many:
                break
        return found
    return []


def _behind_module(words: Sequence[str]) -> Sequence[str]:
    """Without python's own -m, which names a module."""
    for index, word in enumerate(words[:-1]):
        if word == "-m" and not words[index + 1].endswith(_WEIGHTS) and "/" not in words[index + 1]:
            return words[index + 2 :]
    return words


def _positional(words: Sequence[str]) -> list[str]:
    for index, word in enumerate(words):
        if PurePosixPath(word).name in _TAKES_MODEL:
            rest = list(words[index + 1 :])
            while rest and rest[0] in _SUBCOMMANDS:
                rest.pop(0)
            return rest[:1] if rest and not rest[0].startswith("-") else []
    return []


def _size(told: Sequence[str]) -> int:
    text = told[0] if told else ""
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_MOST_TOGETHER)) else 1
    return size if 1 <= size <= _MOST_TOGETHER else 1
