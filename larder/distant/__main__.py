"""`python -m larder.distant`: forward connections to a store over a slow link.

It ends with its parent, unless it is told to stay. The first line on stdout is the port.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from pathlib import Path

from larder.distant.find import find_link
from larder.distant.link import Link, parse_bandwidth, parse_latency
from larder.distant.process import split_address
from larder.distant.proxy import CounterFile, DistantProxy, LoopTimer, make_loop
from larder.machine import set_parent_death_signal


def main() -> int:
    """Serve, or find a link."""
    parser = argparse.ArgumentParser(prog="python -m larder.distant", description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--target", type=split_address, help="the store, as http://host:port")
    task.add_argument("--find", metavar="ADDRESS", help="tell which link an address leads through; fail without one")
    parser.add_argument("--latency", default=0.0, type=parse_latency, help="round-trip time, as in 20ms")
    parser.add_argument("--bandwidth", default=None, type=parse_bandwidth, help="as in 200mbit")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", default=0, type=int, help="the port to listen on; 0 takes a free one")
    parser.add_argument("--counters", type=Path, help="the file for the traffic")
    parser.add_argument("--stay", action="store_true", help="go on when the parent ends")
    words = parser.parse_args()
    if words.find:
        link = find_link(words.find)
        print("no link" if link is None else link.describe())
        return int(link is None)
    if not words.stay:
        set_parent_death_signal()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container has no other handler
    counters = CounterFile(words.counters) if words.counters else None
    listener = socket.create_server((words.host, words.port), backlog=512)
    print(listener.getsockname()[1], flush=True)
    proxy = DistantProxy(words.target, Link(words.latency, words.bandwidth), LoopTimer(), counters)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(proxy.serve(listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
