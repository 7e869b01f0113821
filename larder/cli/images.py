"""The base of the images, pinned by its digest.

    larder pin-images       ask the registry for the digest that the base's tag has now, write it into the Dockerfile

`ARG BASE_IMAGE` in services/Dockerfile is the one place; `larder docs` copies it into compose/stage.yaml, .env.example
and docs/settings.md. A digest is written only if the content that the registry gives has it. This module needs nothing
but Python 3.9.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from larder.cli.settings import shown
from larder.errors import ConfigurationError, ServiceError

DOCKERFILE = Path("services/Dockerfile")
_PLACE = re.compile(r"^(ARG BASE_IMAGE=)(\S+)$", re.MULTILINE)
_REFERENCE = re.compile(
    r"(?:(?P<registry>localhost(?::\d{1,5})?|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d{1,5})?|[A-Za-z0-9-]+:\d{1,5})/)?"
    r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_KINDS = (
    "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
)  # fmt: skip
"""An index, of all platforms; or the manifest of an image that there is for one alone."""
_MOST_BYTES = 4 << 20
"""That registries allow a manifest."""
_SECONDS = 30
_AGAIN = "check network and proxy, then run it again; what was pinned before stays"


class Reference(NamedTuple):
    """The name of an image: `registry/name:tag@digest`."""

    registry: str
    name: str
    tag: str
    digest: str

    def with_digest(self, digest: str) -> str:
        """Return it in the form that Dockerfiles take."""
        return f"{self.registry}{'/' if self.registry else ''}{self.name}:{self.tag}@{digest}"

    @property
    def address(self) -> str:
        """Where its registry answers: Docker Hub's by default, by plain http on this machine alone."""
        host = self.registry or "registry-1.docker.io"
        name = self.name if self.registry or "/" in self.name else f"library/{self.name}"
        return f"{'http' if _is_here(urlsplit(f'//{host}').hostname) else 'https'}://{host}/v2/{name}"


def parse(text: str) -> Reference:
    """Return the parts of an image's name. Raises ConfigurationError."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            f"{shown(text)} is not the name of an image",
            next_step="write it as debian:bookworm-slim or registry.example.org/debian:bookworm-slim",
        )
    return Reference(found["registry"] or "", found["name"], found["tag"] or "latest", found["digest"] or "")


def base(root: Path) -> str:
    """Return the base image as the Dockerfile has it."""
    found = _PLACE.search((root / DOCKERFILE).read_text(encoding="utf-8"))
    if found is None:
        raise ConfigurationError(f"{DOCKERFILE} has no line `ARG BASE_IMAGE=…`", next_step="restore it from git")
    return found[2]


def pin(root: Path) -> str:
    """Write the digest that the base's tag has now into the Dockerfile. Returns the image's new name.

    Raises:
        ServiceError: The registry doesn't answer, refuses, or gives content that has another digest.
    """
    image = parse(base(root))
    pinned = image.with_digest(digest_of(image))
    place = root / DOCKERFILE
    text = _PLACE.sub(lambda found: found[1] + pinned, place.read_text(encoding="utf-8"), count=1)
    new = place.with_name(f"{place.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, place)
    return pinned


def digest_of(image: Reference) -> str:
    """Return the digest that an image's tag has now, computed from what the registry gives. Raises ServiceError."""
    address = f"{image.address}/manifests/{image.tag}"
    content, told = _get(address, image)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if told and told != digest:
        raise ServiceError(f"{address}: the content has the digest {digest}, and the registry says {shown(told)}",
                           next_step="try again; if it stays so, don't use this registry")  # fmt: skip
    try:
        manifest = json.loads(content)
        kind = manifest.get("mediaType", _KINDS[0]) if manifest["schemaVersion"] == 2 else ""
        fits = kind in _KINDS and bool(manifest.get("manifests") or manifest.get("layers"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise ServiceError(f"{address} gives something else than an image", next_step=_AGAIN)
    return digest


def _get(address: str, image: Reference) -> tuple[bytes, str]:
    """Return a manifest, and the digest that the registry says it has. Asks for a token where one is needed."""
    headers = {"Accept": ", ".join(_KINDS)}
    try:
        try:
            return _read(address, headers)
        except urllib.error.HTTPError as fault:
            if fault.code != 401:
                raise
            wanted = fault.headers.get("WWW-Authenticate", "")
        headers["Authorization"] = f"Bearer {_token(address, wanted, image)}"
        return _read(address, headers)
    except urllib.error.HTTPError as fault:
        if fault.code == 404:
            raise ConfigurationError(f"{address}: there is no such image (404)",
                                     next_step=f"correct ARG BASE_IMAGE in {DOCKERFILE}") from None  # fmt: skip
        raise ServiceError(f"{address}: the registry refuses ({fault.code})", next_step=_AGAIN) from None
    except (OSError, HTTPException, ValueError) as fault:
        raise ServiceError(f"{address}: no answer: {shown(str(fault))}", next_step=_AGAIN) from None


def _token(address: str, wanted: str, image: Reference) -> str:
    """Return a token for reading an image, which registries give to everybody, from where the registry sends us."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', wanted[:2000]))
    realm = urlsplit(fields.get("realm", ""))
    allowed = realm.scheme == "https" or (realm.scheme == "http" and address.startswith("http://"))
    if not wanted.startswith("Bearer ") or not allowed:
        raise ServiceError(f"{address}: the registry wants a login of a kind that isn't known here",
                           next_step="choose a base image that everybody may read")  # fmt: skip
    repository = urlsplit(image.address).path[len("/v2/") :]
    query = urlencode({"service": fields.get("service", ""), "scope": f"repository:{repository}:pull"})
    answer = json.loads(_read(f"{realm.geturl().split('?')[0]}?{query}", {})[0])
    token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,16384}", token):
        raise ValueError("the registry's token is none")
    return token


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: object, code: int, msg: str, headers: object, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _read(address: str, headers: dict[str, str]) -> tuple[bytes, str]:
    request = urllib.request.Request(address, headers={"User-Agent": "larder", **headers})
    with urllib.request.build_opener(_NoDowngrade()).open(request, timeout=_SECONDS) as answer:
        content = answer.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError("the answer is too long for a manifest")
        return content, answer.headers.get("Docker-Content-Digest", "")


def _is_here(host: str | None) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")
