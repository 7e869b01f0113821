"""Run a fuzz target: `python -m tests.fuzz TARGET [--seconds N] [--seed N] [--count N]`.

A target is a function that is given a random generator and an empty folder: it makes one input and feeds a parser with
it. Anything it raises but LarderError is a finding, and so are more than 300 MB of memory and more than 30 s. The seed
of each finding is printed; `--seed N --count 1` runs it again.
"""

from __future__ import annotations

import argparse
import sys

from tests.fuzz import harness

TARGETS = {
    "zip": "tests.fuzz.archives:fuzz_zip",
    "tar": "tests.fuzz.archives:fuzz_tar",
    "links": "tests.fuzz.archives:fuzz_links",
    "manifest": "tests.fuzz.manifest:fuzz",
    "index": "tests.fuzz.index:fuzz",
    "shards": "tests.fuzz.shards:fuzz",
    "chunks": "tests.fuzz.chunks:fuzz",
    "lists": "tests.fuzz.lists:fuzz",
    "matlab": "tests.fuzz.matlab:fuzz",
    "parquet": "tests.fuzz.parquet:fuzz",
    "jpeg": "tests.fuzz.jpeg:fuzz",
    "http": "tests.fuzz.http_answers:fuzz",
    "s3": "tests.fuzz.s3_answers:fuzz",
}
"""Name, and where the function is: add yours here."""


def main() -> int:
    """Run it, and return 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="the first seed; each input has the next one")
    parser.add_argument("--count", type=int, default=sys.maxsize, help="at most so many inputs")
    options = parser.parse_args()
    done, findings = harness.fuzz(TARGETS[options.target], options.seed, options.count, options.seconds)
    print(f"{options.target}: {done:,} inputs from seed {options.seed} on, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
