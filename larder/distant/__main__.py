"""`python -m larder.distant`: forward connections to a store over a slow link, until the parent ends.

The first line on stdout is the port.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from pathlib import Path

from larder.distant.link import Link, parse_bandwidth, parse_latency
from larder.distant.process import split_address
from larder.distant.proxy import CounterFile, DistantProxy, LoopTimer, make_loop
from larder.machine import set_parent_death_signal


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="python -m larder.distant", description=__doc__)
    parser.add_argument("--target", required=True, type=split_address, help="the store, as http://host:port")
    parser.add_argument("--latency", default=0.0, type=parse_latency, help="round-trip time, as in 20ms")
    parser.add_argument("--bandwidth", default=None, type=parse_bandwidth, help="as in 200mbit")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", default=0, type=int, help="the port to listen on; 0 takes a free one")
    parser.add_argument("--counters", type=Path, help="the file for the traffic")
    words = parser.parse_args()
    set_parent_death_signal()
    counters = CounterFile(words.counters) if words.counters else None
    listener = socket.create_server((words.host, words.port), backlog=512)
    print(listener.getsockname()[1], flush=True)
    proxy = DistantProxy(words.target, Link(words.latency, words.bandwidth), LoopTimer(), counters)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(proxy.serve(listener))


if __name__ == "__main__":
    main()
