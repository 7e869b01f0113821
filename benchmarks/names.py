"""The names of the benchmarks. `larder benchmarks` runs this file, so it needs only Python 3.9."""

NAMES = (
    "startup", "second_run", "extract_speed", "transform_speed", "memory", "load_speed", "load_memory", "shard_speed",
    "shard_store_speed", "shard_memory", "index_memory", "optimize_speed", "digest_speed", "stream_kernel_speed",
    "stream_speed", "arms_at_their_best", "stream_profile", "stream_mode", "stream_feeding", "stream_memory",
    "stream_curves", "layout_curves", "stream_scale", "stage_costs", "jupyter_speed",
)  # fmt: skip
