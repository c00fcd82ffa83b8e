"""Processor time of one look at a vLLM server's counters, its page of 1 000 lines fetched by HTTP, beside a full parse.

The server is another process, so that what is measured is the reader's own. Goal: 0.1 % of a core at 1 Hz, 1 ms.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from prometheus_client.parser import text_string_to_metric_families

from collectors.clock import SystemClock, boot_seconds
from collectors.engine_server import EngineServer
from collectors.engine_targets import EngineTarget
from collectors.http_page import KeptConnection

_ROUNDS = 5
_LOOKS = 200
_PARSES = 10
_SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    steps = 0
    def do_GET(self):
        Handler.steps += 31
        body = PAGE.replace("STEPS", str(float(self.steps))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
PAGE = sys.stdin.read()
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
_LABELS = 'engine="0",model_name="meta-llama/Llama-3.1-70B-Instruct"'
_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "engine_sleep_state")
_COUNTERS = (
    *("num_preemptions", "prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries"),
    *("external_prefix_cache_hits", "mm_cache_queries", "mm_cache_hits", "prompt_tokens", "prompt_tokens_cached"),
    *("generation_tokens", "request_success"),
)
_HISTOGRAMS = {
    # buckets
    "iteration_tokens_total": 13,
    **dict.fromkeys(("request_prompt_tokens", "request_generation_tokens", "request_max_num_generation_tokens"), 17),
    **dict.fromkeys(("request_params_n", "request_params_max_tokens", "request_prefill_kv_computed_tokens"), 17),
    **dict.fromkeys(("time_to_first_token_seconds", "inter_token_latency_seconds"), 22),
    **dict.fromkeys(("request_time_per_output_token_seconds", "e2e_request_latency_seconds"), 22),
    **dict.fromkeys(("request_queue_time_seconds", "request_inference_time_seconds"), 21),
    **dict.fromkeys(("request_prefill_time_seconds", "request_decode_time_seconds"), 21),
}
_HANDLERS = 24
"""Paths of which the web framework has a histogram of its own on the same page."""


def vllm_page() -> str:
    """A page as vLLM's V1 engine has it, of about 1 000 lines, with "STEPS" where the number of steps stands."""
    lines = [f'python_gc_objects_collected_total{{generation="{each}"}} 12345.0' for each in range(3)]
    for name in _GAUGES:
        lines += [*_head(name, "gauge"), f"vllm:{name}{{{_LABELS}}} 12.0"]
    for name in _COUNTERS:
        lines += [*_head(f"{name}_total", "counter"), f"vllm:{name}_total{{{_LABELS}}} 1.2345678e+07"]
        lines += [*_head(f"{name}_created", "gauge"), f"vllm:{name}_created{{{_LABELS}}} 1.764000000123e+09"]
    for source in ("local_compute", "local_cache_hit", "external_kv_transfer"):
        lines.append(f'vllm:prompt_tokens_by_source_total{{{_LABELS},source="{source}"}} 4.115226e+06')
    for name, buckets in _HISTOGRAMS.items():
        lines += _head(name, "histogram")
        lines += [f'vllm:{name}_bucket{{engine="0",le="{each}.0",{_LABELS[11:]}}} 99.0' for each in range(buckets)]
        count = "STEPS" if name == "iteration_tokens_total" else "99.0"
        lines += [f"vllm:{name}_count{{{_LABELS}}} {count}", f"vllm:{name}_sum{{{_LABELS}}} 3.25e+06"]
    lines += ['vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="27150"} 1.0']
    for path in range(_HANDLERS):
        labels = f'handler="/v1/path-{path}",method="POST"'
        lines += [f'http_request_duration_seconds_bucket{{{labels},le="{each}"}} 7.0' for each in range(20)]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP vllm:{name} What the engine tells of it.", f"# TYPE vllm:{name} {kind}"]


def run() -> list[str]:
    """One line."""
    page = vllm_page()
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(page.encode())
        process.stdin.close()
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/metrics"
        try:
            return [_line(url, page)]
        finally:
            process.kill()


def _line(url: str, page: str) -> str:
    server = EngineServer(EngineTarget(name="vllm-8000", url=url), clock=SystemClock(), tick=boot_seconds)
    connection = KeptConnection(url, timeout_seconds=5.0)

    def look() -> None:
        server.read()

    def parse() -> None:
        for _family in text_string_to_metric_families(connection.get().body.decode()):
            pass

    look()
    assert server.read()[0].steps == 31.0
    rounds = [(_cpu_seconds(look, _LOOKS), _cpu_seconds(parse, _PARSES)) for _ in range(_ROUNDS)]
    server.close()
    connection.close()
    ours, full = median(one for one, _ in rounds), median(other for _, other in rounds)
    ratio = median(other / one for one, other in rounds)
    return (
        f"engine: a page of {page.count(chr(10)):,} lines ({len(page) / 1e3:.0f} kB), HTTP included:"
        f" {ours * 1e3:.2f} ms, {ours:.3%} of a core at 1 Hz;"
        f" parsed whole by prometheus_client {full * 1e3:.1f} ms, {full:.2%}, ratio {ratio:.0f}"
    )


def _cpu_seconds(work: Callable[[], None], times: int) -> float:
    """Processor time of this process for one of them."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


if __name__ == "__main__":
    print("\n".join(run()))
