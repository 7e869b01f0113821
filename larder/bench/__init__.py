"""The instrument: measures how fast a loader gives batches, trains through it, keeps records and compares them.

feed             a loader that is ready to be measured
passes           how many batches, the warm-up, the measured passes
measure          one pass: waits, CPU time, memory (usage), bytes received over time (received)
training         a small network, trained through a loader
record, results  what is kept of a run, and where; table shows it
compare          records side by side
provenance       where a figure comes from
rclone_mount     a bucket mounted by rclone: is it there, and what came over the network (rclone_metrics)
settings         what programs that use loaders are told; wording, errors in terms of those settings
"""
