"""The access token that a JupyterHub renews."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from provision import hub

Answer = tuple[int, Any]


@pytest.fixture
def answers() -> Iterator[Callable[[Answer], dict[str, str]]]:
    """Return the environment of a user's server whose hub gives an answer to the user's own token alone."""
    given: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = (self.path, self.headers["Authorization"])
            status, body = given[-1] if asked == ("/hub/api/users/a%40b", "token own") else (403, {})
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environ = {
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{server.server_port}/hub/api",
        "JUPYTERHUB_API_TOKEN": "own",
        "JUPYTERHUB_USER": "a@b",
        "OS_AUTH_TYPE": "v3oidcaccesstoken",
    }

    def answers(answer: Answer) -> dict[str, str]:
        given.append(answer)
        return environ

    yield answers
    server.shutdown()
    server.server_close()


def test_the_hub_gives_the_present_token(answers: Callable[[Answer], dict[str, str]]) -> None:
    environ = answers((200, {"name": "a@b", "auth_state": {"access_token": "new", "expires_at": 1}}))
    assert hub.gives_tokens(environ) and hub.fetch_access_token(environ) == "new"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((403, {}), "403"),
        ((302, {}), "302"),
        ((200, {"auth_state": None}), "no access token"),
        ((200, {"auth_state": {"access_token": None}}), "no access token"),
        ((200, {"auth_state": {"access_token": "a\nX-Header: b"}}), "no access token"),
        ((200, []), "no access token"),
        ((200, b"<html>"), "isn't JSON"),
    ],
)
def test_another_answer_is_no_token(answers: Callable[[Answer], dict[str, str]], answer: Answer, reason: str) -> None:
    with pytest.raises(hub.HubError, match=reason):
        hub.fetch_access_token(answers(answer))


def test_a_hub_that_does_not_answer(answers: Callable[[Answer], dict[str, str]]) -> None:
    environ = {**answers((200, {})), "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api"}
    with pytest.raises(hub.HubError, match="refused"):
        hub.fetch_access_token(environ)


@pytest.mark.parametrize(
    "changes",
    [
        {"OS_AUTH_TYPE": "v3password"},
        {"OS_CLOUD": "chi"},
        {"JUPYTERHUB_API_TOKEN": ""},
        {"JUPYTERHUB_API_URL": ""},
        {"JUPYTERHUB_USER": ""},
    ],
)
def test_the_hub_is_asked_only_for_its_own_login(
    answers: Callable[[Answer], dict[str, str]], changes: dict[str, str]
) -> None:
    assert not hub.gives_tokens({**answers((200, {})), **changes})
