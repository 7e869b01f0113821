"""How fast and how big the stages are, against yardsticks, in interleaved runs: `make benchmarks`.

One module per question, each with a function `measure() -> Report`, or `measure(images)` where few images and many are
looked at. Wall clocks of shared machines are noisy, so contestants take turns within a round, a figure is the median of
the rounds' ratios, and its spread stands beside it.
"""
