"""What command lines of model servers tell of the models they serve."""

import pytest

from collectors.served_models import served_by


@pytest.mark.parametrize(
    ("line", "models", "size"),
    [
        ("vllm serve meta-llama/Llama-2-70b-chat-hf", ("meta-llama/Llama-2-70b-chat-hf",), 1),
        ("/opt/venv/bin/python3 /opt/venv/bin/vllm serve qwen/q --tensor-parallel-size 4 --port 8001", ("qwen/q",), 4),
        ("vllm serve qwen/q --served-model-name chat chat-large -tp 2", ("chat", "chat-large"), 2),
        ("vllm serve --model qwen/q --tensor-parallel-size=8", ("qwen/q",), 8),
        ("python3 -m vllm.entrypoints.openai.api_server --model m --served-model-name=n", ("n",), 1),
        ("python -m sglang.launch_server --model-path /models/qwen --tp-size 2", ("/models/qwen",), 2),
        ("llama-server -m /models/phi-4-q4.gguf --port 8080", ("/models/phi-4-q4.gguf", "phi-4-q4"), 1),
        ("llama-server -m /models/phi-4-q4.gguf --alias phi", ("phi",), 1),
        ("python3 -m llama_cpp.server --model phi.gguf", ("phi.gguf", "phi"), 1),
        ("text-generation-launcher --model-id bigscience/bloom --num-shard 8", ("bigscience/bloom",), 8),
        ("trtllm-serve meta/llama --tp_size 2", ("meta/llama",), 2),
        ("trtllm-serve serve meta/llama", ("meta/llama",), 1),
        ("lmdeploy serve api_server internlm/i --tp 2", ("internlm/i",), 2),
        ("ollama serve", (), 1),
        ("tritonserver --model-repository=/models", (), 1),
        ("vllm serve --tensor-parallel-size many", (), 1),
        ("vllm serve --model", (), 1),
        ("VLLM::EngineCore", (), 1),
        ("", (), 1),
    ],
)
def test_command_lines(line: str, models: tuple[str, ...], size: int) -> None:
    """Served names before the model itself; a number of GPUs only where it is one."""
    served = served_by(line.split())
    assert (served.models, served.tensor_parallel_size) == (models, size)
