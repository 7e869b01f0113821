"""Measure how fast a loader yields batches, train through it, and store and compare records.

measured_loader  a loader that is ready to be measured
passes           number of batches, warm-up, measured passes
measure          one pass: waits, CPU time, memory (usage), bytes received over time (received)
training         a small network, trained through a loader
record           content and storage of a run's record (record_files); table renders it
compare          records side by side
provenance       code, libraries and machine of a measurement
rclone_mount     check a bucket mounted by rclone; rclone_metrics reads its traffic
settings         settings of programs that use loaders; wording expresses errors in terms of those settings
"""
