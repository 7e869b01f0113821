"""A login at Keystone by an OIDC access token, as Chameleon's sites take it.

Keystone's own federation does it: identity provider, protocol, mapping, unscoped and scoped tokens. Only the web server
in front is a stand-in: where Apache's mod_auth_openidc asks the identity provider about a bearer token, this one looks
it up in a table, and passes the user's name on in a header.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

PROTOCOL = "mapped"
"""In Keystone's default list of methods; Chameleon's is named openid. It is a word in the address, and no more."""


class Front:
    """The web server in front of Keystone, or of a JupyterHub; each address has one of its own."""

    def __init__(self, keystone: str) -> None:
        self.keystone = keystone
        self.users: dict[str, str] = {}
        """User by access token."""
        self.hub_users: dict[str, Any] = {}
        """What the JupyterHub tells a user's server of its user, by the server's token."""
        self.seen: list[str] = []
        """The requests' paths."""
        self.leads_to_a_page = False
        """Whether a refused token leads to a login page, as with some of Apache's settings."""
        front = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                front.answer(self)

            do_GET = do_POST = do_HEAD = do_DELETE = answer

            def log_message(self, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.seen.append(request.path)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "oidc-sub")}
        if request.path.startswith("/hub/"):
            user = self.hub_users.get(request.headers["Authorization"].removeprefix("token "))
            return _send(request, 200 if user else 403, json.dumps(user).encode(), {"Content-Type": "application/json"})
        if "/OS-FEDERATION/" in request.path:
            user = self.users.get(headers.pop("Authorization", "").removeprefix("Bearer "))
            if user is None and self.leads_to_a_page:
                return _send(request, 200, b"<html>Log in</html>", {"Content-Type": "text/html"})
            if user is None:
                return _send(
                    request, 401, b"<html><title>401</title>Unauthorized</html>", {"Content-Type": "text/html"}
                )
            headers["OIDC-SUB"] = user
        body = request.rfile.read(int(request.headers["Content-Length"] or 0))
        answer = requests.request(request.command, f"{self.keystone}{request.path}", headers=headers, data=body)
        return _send(request, answer.status_code, answer.content, answer.headers)


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Any) -> None:
    request.send_response_only(status)
    for name, value in headers.items():
        if name.lower() not in ("transfer-encoding", "content-encoding", "content-length", "connection"):
            request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


@contextmanager
def identity_provider(admin: Any) -> Iterator[str]:
    """Register an identity provider whose users are Keystone's of the same names; yield its id, and remove it."""
    name = f"idp{uuid.uuid4().hex[:8]}"
    identity = admin.identity
    user = {"name": "{0}", "domain": {"name": "Default"}, "type": "local"}
    rules = [{"local": [{"user": user}], "remote": [{"type": "HTTP_OIDC_SUB"}]}]
    identity.create_mapping(id=name, rules=rules)
    identity.create_identity_provider(id=name, is_enabled=True, domain_id=identity.find_domain("Default").id)
    identity.create_federation_protocol(name, id=PROTOCOL, mapping_id=name)
    try:
        yield name
    finally:
        identity.delete_federation_protocol(name, PROTOCOL)
        identity.delete_identity_provider(name)
        identity.delete_mapping(name)


@pytest.fixture(scope="session")
def provider(admin: Any) -> Iterator[str]:
    """The id of an identity provider at Keystone."""
    with identity_provider(admin) as name:
        yield name


@pytest.fixture
def fronts(site: Any, provider: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Front]]:
    """The two sites' addresses, and the environment that the hub leaves in a user's server there."""
    made = [Front(f"http://{site.box}:5000") for _ in range(2)]
    for variable in (item for item in site.environ if item.startswith("OS_")):
        monkeypatch.delenv(variable)
    environ = {
        "OS_AUTH_TYPE": "v3oidcaccesstoken",
        "OS_AUTH_URL": "http://127.0.0.1:9/v3",  # a site that nobody needs
        "OS_ACCESS_TOKEN": "first",
        "OS_IDENTITY_PROVIDER": provider,
        "OS_PROTOCOL": PROTOCOL,
        "OS_INTERFACE": "public",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_PROJECT_NAME": site.environ["OS_PROJECT_NAME"],
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "Elsewhere",
        "LARDER_CALLER": "192.0.2.7",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for front in made:
        front.users["first"] = site.environ["OS_USERNAME"]
    yield made
    for front in made:
        front.close()


@pytest.fixture
def hub(site: Any, fronts: list[Front], monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """The hub's API, which gives the user's present access token to the user's server."""
    made = Front("")
    made.hub_users["own"] = {"name": site.environ["OS_USERNAME"], "auth_state": {"access_token": "first"}}
    monkeypatch.setenv("JUPYTERHUB_API_URL", f"{made.address}/hub/api")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "own")
    monkeypatch.setenv("JUPYTERHUB_USER", site.environ["OS_USERNAME"])
    yield made
    made.close()
