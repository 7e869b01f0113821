"""Next steps for errors of loaders, worded for any program that uses them.

A program that knows which stage makes the data replaces them: see `larder.bench.wording`. Arguments of loaders are
named in backticks, or as `argument=value` at the beginning of an error.
"""

from __future__ import annotations

CREATE_FIRST = "create the data first, or give their location"
RESTORE = "run the program that made the data again, which restores what is missing"
CREATE_AGAIN = "create the data again"
NAME_OTHER_PLACE = "give the location of data of this kind"
REMOVE_SURPLUS = "remove other files from the folder"
LOAD_AGAIN = "load the data again, which restores them"
USE_FEWER_READERS = "run again with fewer readers (`workers`)"
RAISE_SHARED_MEMORY = "give this machine or container more shared memory, or set `workers` or `batch_size` lower"
REDUCE_MEMORY = "look for `Out of memory` in `dmesg`; set `workers` lower, or add memory"
RUN_AGAIN = "run the same command again"
