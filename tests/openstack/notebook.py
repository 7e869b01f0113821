"""A person's notebook: what JupyterLab's page does over HTTP and WebSocket to run a cell and to save a notebook."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

CELL_SECONDS = 300
"""An emulated machine starts a kernel in a minute."""


@dataclass(frozen=True)
class Jupyter:
    """A Jupyter server. The protocol: https://jupyter-server.readthedocs.io/en/latest/developers/rest-api.html"""

    address: str
    token: str

    def answers(self) -> bool:
        """Whether it takes requests."""
        try:
            return bool(self._ask("GET", "api/status"))
        except OSError:  # urllib's errors are such
            return False

    def save_run(self, path: str, code: str) -> dict[str, Any]:
        """Save a notebook with one cell, and run that in a kernel of the notebook's folder; returns the notebook."""
        import nbformat  # takes a second, which each process that collects the tests would wait for

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code, id="cell")])
        self._ask("PUT", f"api/contents/{path}", {"type": "notebook", "format": "json", "content": notebook})
        kernel = self._ask("POST", "api/kernels", {"name": "python3", "path": path})["id"]
        reply = asyncio.run(asyncio.wait_for(self._run(kernel, code), CELL_SECONDS))
        assert reply["status"] == "ok", reply
        saved: dict[str, Any] = self._ask("GET", f"api/contents/{path}")["content"]
        return saved

    async def _run(self, kernel: str, code: str) -> dict[str, Any]:
        """Run code in a kernel; returns its reply."""
        place = f"ws://{self.address}/api/kernels/{kernel}/channels?token={self.token}"
        # It opens when the kernel has started.
        request = HTTPRequest(place, connect_timeout=CELL_SECONDS, request_timeout=CELL_SECONDS)
        socket = await websocket_connect(request)
        id = uuid.uuid4().hex
        header = {"msg_id": id, "msg_type": "execute_request", "username": "", "session": id, "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        execute = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
        await socket.write_message(json.dumps(execute | {"channel": "shell"}))
        while True:
            message = json.loads(await socket.read_message() or "{}")
            if message["msg_type"] == "execute_reply" and message["parent_header"]["msg_id"] == id:
                socket.close()
                reply: dict[str, Any] = message["content"]
                return reply

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://{self.address}/{path}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)
