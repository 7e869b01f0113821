"""Compare the stages' speed and memory with baselines, such as unzip and GNU tar: `make benchmarks`.

One module per question, each with a function `measure() -> BenchmarkReport`, or `measure(images)` to measure few and
many images. Shared machines are noisy. So the programs take turns within a round, a figure is the median of the rounds'
ratios, and it is reported with its spread.
"""
