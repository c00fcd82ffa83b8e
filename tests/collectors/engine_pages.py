"""Pages of model servers, small, with the names and labels of each kind and version: what is wanted, and what not."""

VLLM = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 11183.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama"} 3.0
vllm:num_requests_running{engine="1",model_name="llama"} 2.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="llama"} 1.0
vllm:num_requests_waiting{engine="1",model_name="llama"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="llama",reason="capacity"} 1.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="llama"} 0.25
# HELP vllm:prefix_cache_hits_total Prefix cache hits, in terms of number of cached tokens.
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="llama"} 9.9e+06
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="llama"} 3000.0
vllm:prompt_tokens_total{engine="1",model_name="llama"} 1.2e+03
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="llama"} 1.76e+09
# HELP vllm:prompt_tokens_by_source_total Number of prompt tokens by source.
# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="llama",source="local_compute"} 1000.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="llama",source="local_cache_hit"} 1900.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="llama",source="external_kv_transfer"} 100.0
vllm:prompt_tokens_by_source_total{engine="1",model_name="llama",source="local_compute"} 1.2e+03
# HELP vllm:prompt_tokens_cached_total Number of cached prompt tokens (local + external).
# TYPE vllm:prompt_tokens_cached_total counter
vllm:prompt_tokens_cached_total{engine="0",model_name="llama"} 2000.0
vllm:prompt_tokens_cached_total{engine="1",model_name="llama"} 0.0
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="llama"} 2.5e+03
vllm:generation_tokens_total{engine="1",model_name="llama"} 500.0
# HELP vllm:iteration_tokens_total Histogram of number of tokens per engine_step.
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="llama"} 7.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="llama"} 410.0
vllm:iteration_tokens_total_count{engine="0",model_name="llama"} 410.0
vllm:iteration_tokens_total_sum{engine="0",model_name="llama"} 5500.0
vllm:iteration_tokens_total_bucket{engine="1",le="+Inf",model_name="llama"} 90.0
vllm:iteration_tokens_total_count{engine="1",model_name="llama"} 90.0
vllm:iteration_tokens_total_sum{engine="1",model_name="llama"} 1700.0
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000",num_gpu_blocks_override="None"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="2000",num_gpu_blocks_override="None"} 1.0
"""
"""V1 with data parallel engines 0 and 1, from the version on that tells where prompt tokens came from."""

VLLM_V1_BEFORE = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama"} 3.0
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{engine="0",model_name="llama"} 0.5
# TYPE vllm:gpu_prefix_cache_hits_total counter
vllm:gpu_prefix_cache_hits_total{engine="0",model_name="llama"} HITS
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="llama"} 3000.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_count{engine="0",model_name="llama"} 410.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="None"} 1.0
"""
"""V1 of 0.8; HITS is how many tokens were found in the prefix cache."""

VLLM_V0 = """\
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="llama"} 3.0
# TYPE vllm:num_requests_swapped gauge
vllm:num_requests_swapped{model_name="llama"} 7.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="llama"} 0.0
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{model_name="llama"} 0.125
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="llama"} 3000.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{model_name="llama"} 2500.0
"""

SGLANG = """\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="qwen",pp_rank="0",priority="",tp_rank="0"} 4.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="qwen",pp_rank="0",priority="1",tp_rank="0"} 3.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="qwen",pp_rank="0",priority="",tp_rank="1"} 4.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="qwen",pp_rank="0",priority="",tp_rank="2"} 5.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{dp_rank="0",model_name="qwen",pp_rank="0",tp_rank="0"} 2.0
# TYPE sglang:num_used_tokens gauge
sglang:num_used_tokens{dp_rank="0",model_name="qwen",pp_rank="0",tp_rank="0"} 8192.0
# TYPE sglang:cuda_graph_passes_total counter
sglang:cuda_graph_passes_total{dp_rank="0",mode="decode_cuda_graph",model_name="qwen",pp_rank="0",tp_rank="0"} 700.0
sglang:cuda_graph_passes_total{dp_rank="0",mode="decode_none",model_name="qwen",pp_rank="0",tp_rank="0"} 30.0
sglang:cuda_graph_passes_total{dp_rank="0",mode="prefill_none",model_name="qwen",pp_rank="0",tp_rank="0"} 20.0
# TYPE sglang:realtime_tokens_total counter
sglang:realtime_tokens_total{dp_rank="0",mode="prefill_compute",model_name="qwen",pp_rank="0",tp_rank="0"} 6000.0
sglang:realtime_tokens_total{dp_rank="0",mode="prefill_cache",model_name="qwen",pp_rank="0",tp_rank="0"} 1500.0
sglang:realtime_tokens_total{dp_rank="0",mode="decode",model_name="qwen",pp_rank="0",tp_rank="0"} 2900.0
sglang:realtime_tokens_total{dp_rank="0",mode="decode",model_name="qwen",pp_rank="0",tp_rank="1"} 2899.0
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{is_streaming="true",model_name="qwen"} 7000.0
"""
"""Two data parallel ranks; every tensor parallel rank shows the same once more."""

SGLANG_BEFORE = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="qwen"} 4.0
# TYPE sglang:cuda_graph_passes_total counter
sglang:cuda_graph_passes_total{mode="decode_cuda_graph",model_name="qwen"} 700.0
# TYPE sglang:generation_tokens_total counter
sglang:generation_tokens_total{model_name="qwen"} 2900.0
"""
"""It counts passes of decode alone, and tokens when a request ends."""

TGI = """\
# TYPE tgi_batch_inference_count counter
tgi_batch_inference_count{method="prefill"} 40
tgi_batch_inference_count{method="decode"} 960

# TYPE tgi_queue_size gauge
tgi_queue_size 2

# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 5

# TYPE tgi_request_generated_tokens histogram
tgi_request_generated_tokens_bucket{le="1"} 0
tgi_request_generated_tokens_sum 8123
tgi_request_generated_tokens_count 44
"""

LLAMA_CPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 77454
# HELP llamacpp:prompt_tokens_cached_total Number of prompt tokens reused from the cache
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 129725
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 1426
# HELP llamacpp:n_decode_total Total number of llama_decode() calls
# TYPE llamacpp:n_decode_total counter
llamacpp:n_decode_total 424
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 3
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 1
"""

TENSORRT_LLM = """\
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="trtllm",model_name="nemotron"} 6.0
# TYPE trtllm_num_requests_waiting gauge
trtllm_num_requests_waiting{engine_type="trtllm",model_name="nemotron"} 0.0
# TYPE trtllm_prefill_batch_tokens histogram
trtllm_prefill_batch_tokens_bucket{engine_type="trtllm",le="+Inf",model_name="nemotron"} 12.0
trtllm_prefill_batch_tokens_count{engine_type="trtllm",model_name="nemotron"} 12.0
trtllm_prefill_batch_tokens_sum{engine_type="trtllm",model_name="nemotron"} 9600.0
# TYPE trtllm_prompt_cache_hit_tokens_total counter
trtllm_prompt_cache_hit_tokens_total{cache_level="0",cache_tier="gpu",engine_type="trtllm",model_name="nemotron"} 300.0
trtllm_prompt_cache_hit_tokens_total{cache_level="1",cache_tier="host",engine_type="trtllm",model_name="nemotron"} 20.0
# TYPE trtllm_generation_tokens_total counter
trtllm_generation_tokens_total{engine_type="trtllm",model_name="nemotron"} 4000.0
# TYPE trtllm_kv_cache_used_blocks gauge
trtllm_kv_cache_used_blocks{engine_type="trtllm",model_name="nemotron"} 50.0
# TYPE trtllm_kv_cache_tokens_per_block gauge
trtllm_kv_cache_tokens_per_block{engine_type="trtllm",model_name="nemotron"} 32.0
"""

TRITON = """\
# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="tensorrt_llm",version="1"} 9
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 4
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 10
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="free",model="tensorrt_llm",version="1"} 6239
# TYPE nv_trt_llm_general_metrics gauge
nv_trt_llm_general_metrics{general_type="iteration_counter",model="tensorrt_llm",version="1"} 777
nv_trt_llm_general_metrics{general_type="timestamp",model="tensorrt_llm",version="1"} 1700074049
"""
