"""What helps when a loader can't read its data, in words that hold wherever the loader is used.

A program that knows which stage makes the data says so instead: see `larder.bench.wording`. Settings are named as
the loaders' arguments, in backticks; at the beginning of an error, as `argument=value`.
"""

from __future__ import annotations

ABSENT = "make the data first, or name the place where they are"
RESTORE = "run what made the data once more, which puts back what is missing"
RENEW = "make the data anew"
OTHER_KIND = "name the place of data of this kind"
SURPLUS = "remove what is there beside the data"
GONE = "run what loaded the data once more, which puts them back"
FEWER_READERS = "run again with fewer readers (`workers`)"
SHARED_MEMORY = "give this machine or container more shared memory, or set `workers` or `batch_size` lower"
MEMORY = "look for `Out of memory` in `dmesg`; set `workers` lower or give it more memory"
AGAIN = "run the same again"
