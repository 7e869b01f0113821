"""Executes notebooks in one kernel, one after the other; runs in JupyterLab's container.

Reads requests and writes notebooks with their outputs, as JSON, a line each. Before each notebook the kernel forgets
all names, so that a notebook must import what it uses; imported modules stay loaded, which saves most of the time.
After each cell with the tag "parameters", the request's parameters replace those of the cell, as with papermill.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

RESET = """
import os, matplotlib.pyplot
matplotlib.pyplot.close("all")
os.chdir({folder!r})
for name, value in {changes!r}.items():
    os.environ.pop(name, None) if value is None else os.environ.update({{name: value}})
get_ipython().run_line_magic("reset", "-f")
"""


def with_parameters(cells: list[Any], parameters: dict[str, object]) -> Iterator[Any]:
    """Yield the cells, and behind each with parameters one that replaces them."""
    for cell in cells:
        yield cell
        if "parameters" in cell.metadata.get("tags", ()):
            yield nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in parameters.items()))


async def main() -> None:
    """Answer requests: `{"notebook": "1-images", "settings": {"S3_BUCKET": "food"}, "parameters": {"IMAGES": 8}}`."""
    kernel = AsyncKernelManager()
    await kernel.start_kernel()
    given: dict[str, str] = {}
    for line in sys.stdin:
        request = json.loads(line)
        changes = {name: os.environ.get(name) for name in given} | request["settings"]
        given = request["settings"]
        notebook = nbformat.read(f"{request['notebook']}.ipynb", as_version=4)
        reset = nbformat.v4.new_code_cell(RESET.format(folder=os.getcwd(), changes=changes))
        notebook.cells = [reset, *with_parameters(notebook.cells, request["parameters"])]
        client = NotebookClient(notebook, km=kernel, allow_errors=True, timeout=None, startup_timeout=600)
        await client.async_execute()
        assert client.kc and not reset.outputs, reset.outputs
        client.kc.stop_channels()
        print(json.dumps(notebook), flush=True)
    await kernel.shutdown_kernel(now=True)


if __name__ == "__main__":
    asyncio.run(main())
