"""Use the login of a JupyterHub, as python-chi does at Chameleon.

The hub starts a user's server with OS_AUTH_TYPE=v3oidcaccesstoken and OS_ACCESS_TOKEN. That token expires within
minutes or hours. The hub renews it, and returns the new one for a request with the server's JUPYTERHUB_API_TOKEN.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from provision.web import NoRedirect

ACCESS_TOKEN_LOGIN = "v3oidcaccesstoken"
SECONDS = 10
MAX_BYTES = 1 << 20
_NEEDED = ("JUPYTERHUB_API_URL", "JUPYTERHUB_API_TOKEN", "JUPYTERHUB_USER")


class HubError(Exception):
    """The hub gives no access token; the text is the reason."""


def is_hub(environ: Mapping[str, str]) -> bool:
    """Return whether this is a user's server of a JupyterHub, which isn't the user's computer."""
    return bool(environ.get("JUPYTERHUB_API_URL"))


def gives_tokens(environ: Mapping[str, str]) -> bool:
    """Return whether the login is by an access token that a JupyterHub renews."""
    is_token_login = environ.get("OS_AUTH_TYPE") == ACCESS_TOKEN_LOGIN and not environ.get("OS_CLOUD")
    return is_token_login and all(environ.get(name) for name in _NEEDED)


def fetch_access_token(environ: Mapping[str, str]) -> str:
    """Return the user's present access token. Raises HubError if the hub gives none."""
    address = f"{environ['JUPYTERHUB_API_URL'].rstrip('/')}/users/{quote(environ['JUPYTERHUB_USER'], safe='')}"
    request = urllib.request.Request(address, headers={"Authorization": f"token {environ['JUPYTERHUB_API_TOKEN']}"})
    try:
        with urllib.request.build_opener(NoRedirect()).open(request, timeout=SECONDS) as answer:
            token = _read_token(json.loads(answer.read(MAX_BYTES)))
    except (OSError, HTTPException) as error:
        raise HubError(str(error)) from error
    except (ValueError, RecursionError) as error:  # its text may hold a part of the answer
        raise HubError("its answer isn't JSON, or its address is invalid") from error
    if not re.fullmatch(r"[!-~]+", token):
        raise HubError("its answer has no access token (auth_state)")
    return token


def _read_token(user: Any) -> str:
    state = user.get("auth_state") if isinstance(user, dict) else None
    token = state.get("access_token") if isinstance(state, dict) else None
    return token if isinstance(token, str) else ""
