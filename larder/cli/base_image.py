"""Pin the base of the images by its digest.

`larder pin-images` queries the registry for the current digest of the base's tag, and writes it into the Dockerfile.
`ARG BASE_IMAGE` in services/Dockerfile is the single source; `larder docs` copies it into compose/stage.yaml,
.env.example and docs/settings.md. A digest is written only if it matches the content that the registry returns. This
module needs only Python 3.9.
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

from larder.cli.setting_values import printable
from larder.errors import ConfigurationError, ServiceError

DOCKERFILE = Path("services/Dockerfile")
_BASE_IMAGE_LINE = re.compile(r"^(ARG BASE_IMAGE=)(\S+)$", re.MULTILINE)
_REFERENCE = re.compile(
    r"(?:(?P<registry>localhost(?::\d{1,5})?|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d{1,5})?|[A-Za-z0-9-]+:\d{1,5})/)?"
    r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""Media types of an index (all platforms) and of a manifest (a single platform)."""
_MAX_MANIFEST_BYTES = 4 << 20
"""Maximum length of a manifest that registries allow."""
_TIMEOUT_SECONDS = 30
_RETRY = "check network and proxy, then run it again; the previous pin stays"


class ImageReference(NamedTuple):
    """Name of an image: `registry/name:tag@digest`."""

    registry: str
    name: str
    tag: str
    digest: str

    def with_digest(self, digest: str) -> str:
        """Return the name with a digest, in a Dockerfile's form."""
        return f"{self.registry}{'/' if self.registry else ''}{self.name}:{self.tag}@{digest}"

    @property
    def address(self) -> str:
        """URL of the image in its registry: Docker Hub by default; plain http only on this machine."""
        host = self.registry or "registry-1.docker.io"
        name = self.name if self.registry or "/" in self.name else f"library/{self.name}"
        return f"{'http' if _is_loopback(urlsplit(f'//{host}').hostname) else 'https'}://{host}/v2/{name}"


def parse(text: str) -> ImageReference:
    """Parse the name of an image. Raise ConfigurationError if it is invalid."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"{printable(text)} is not the name of an image",
            next_step="write it as debian:bookworm-slim or registry.example.org/debian:bookworm-slim",
        )
    return ImageReference(match["registry"] or "", match["name"], match["tag"] or "latest", match["digest"] or "")


def read_base_image(root: Path) -> str:
    """Return the base image in the Dockerfile."""
    match = _BASE_IMAGE_LINE.search((root / DOCKERFILE).read_text(encoding="utf-8"))
    if match is None:
        raise ConfigurationError(f"{DOCKERFILE} has no line `ARG BASE_IMAGE=…`", next_step="restore it from git")
    return match[2]


def pin_base_image(root: Path) -> str:
    """Write the current digest of the base's tag into the Dockerfile. Return the image's new name.

    Raises:
        ServiceError: If the registry doesn't answer, refuses, or returns content with another digest.
    """
    image = parse(read_base_image(root))
    pinned = image.with_digest(digest_of(image))
    path = root / DOCKERFILE
    text = _BASE_IMAGE_LINE.sub(lambda match: match[1] + pinned, path.read_text(encoding="utf-8"), count=1)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
    return pinned


def digest_of(image: ImageReference) -> str:
    """Return the current digest of an image's tag, computed from the registry's content. Raise ServiceError."""
    address = f"{image.address}/manifests/{image.tag}"
    content, stated = _get(address, image)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if stated and stated != digest:
        raise ServiceError(
            f"{address}: the content has the digest {digest}, and the registry says {printable(stated)}",
            next_step="try again; if the error persists, don't use this registry",
        )
    try:
        manifest = json.loads(content)
        kind = manifest.get("mediaType", _MEDIA_TYPES[0]) if manifest["schemaVersion"] == 2 else ""
        is_valid = kind in _MEDIA_TYPES and bool(manifest.get("manifests") or manifest.get("layers"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_valid = False
    if not is_valid:
        raise ServiceError(f"{address} returned something that is not an image", next_step=_RETRY)
    return digest


def _get(address: str, image: ImageReference) -> tuple[bytes, str]:
    """Return a manifest, and the digest that the registry states. Request a token if one is required."""
    headers = {"Accept": ", ".join(_MEDIA_TYPES)}
    try:
        try:
            return _read(address, headers)
        except urllib.error.HTTPError as fault:
            if fault.code != 401:
                raise
            challenge = fault.headers.get("WWW-Authenticate", "")
        headers["Authorization"] = f"Bearer {_token(address, challenge, image)}"
        return _read(address, headers)
    except urllib.error.HTTPError as fault:
        if fault.code == 404:
            raise ConfigurationError(
                f"{address}: there is no such image (404)", next_step=f"correct ARG BASE_IMAGE in {DOCKERFILE}"
            ) from None
        raise ServiceError(f"{address}: the registry refuses ({fault.code})", next_step=_RETRY) from None
    except (OSError, HTTPException, ValueError) as fault:
        raise ServiceError(f"{address}: no answer: {printable(str(fault))}", next_step=_RETRY) from None


def _token(address: str, challenge: str, image: ImageReference) -> str:
    """Return an anonymous token for reading an image, from the address that the registry names."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge[:2000]))
    realm = urlsplit(fields.get("realm", ""))
    allowed = realm.scheme == "https" or (realm.scheme == "http" and address.startswith("http://"))
    if not challenge.startswith("Bearer ") or not allowed:
        raise ServiceError(
            f"{address}: the registry requires an unknown kind of login",
            next_step="choose a base image that everybody may read",
        )
    repository = urlsplit(image.address).path[len("/v2/") :]
    query = urlencode({"service": fields.get("service", ""), "scope": f"repository:{repository}:pull"})
    answer = json.loads(_read(f"{realm.geturl().split('?')[0]}?{query}", {})[0])
    token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,16384}", token):
        raise ValueError("the registry's token is invalid")
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
    with urllib.request.build_opener(_NoDowngrade()).open(request, timeout=_TIMEOUT_SECONDS) as answer:
        content = answer.read(_MAX_MANIFEST_BYTES + 1)
        if len(content) > _MAX_MANIFEST_BYTES:
            raise ValueError("the answer is too long for a manifest")
        return content, answer.headers.get("Docker-Content-Digest", "")


def _is_loopback(host: str | None) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")
