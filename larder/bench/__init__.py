"""Measure how fast a loader yields batches, train through it, and store and compare records.

arms               the arms, and their registry; open_arm imports and opens one, arm_errors words its errors
comparison         compare arms in interleaved rounds
report             render a comparison as a page, Markdown and text, with the standard library alone
measured_loader    a loader that is ready to be measured
passes             number of batches, warm-up, measured passes
measure            one pass: waits, CPU time, memory (usage), bytes received over time (received)
training           a small network, trained through a loader
run_record         the record of a run of bench; run_table renders it, run_rates puts several side by side
comparison_record  the record of a comparison: what follows from the rounds; comparison_parts defines what is
                   measured, summarize computes the one from the other, with statistics and accelerators
record_folder      reserve a name for a record, and write it
plain_shards       loaders of any tar shards
own_loaders        measure anybody's loaders, one setting at a time
provenance         code, libraries and machine of a measurement
rclone_mount       check a bucket mounted by rclone; rclone_metrics reads its traffic
settings           settings of programs that use loaders; wording expresses errors in terms of those settings
"""
