"""Check the store before gigabytes are built or installed for a command that needs it."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from larder.cli import dotenv, local_store
from larder.cli.app import App
from larder.cli.compose import ComposeRunner
from larder.cli.setting_values import printable
from larder.distant.link import require_plain_http
from larder.errors import ConfigurationError, ServiceError

_SECONDS = 3.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_READ_NO_BUCKET = (
    "dali",
    "imagefolder_local",
    "imagefolder_rclone_mount",
    "simplejpeg_local",
    "spdl",
    "turboloader",
)
"""Arms that read files, or a mount, which has its own error. Their table (larder.bench.arms) isn't read here: the
command line needs nothing that a bare Python lacks."""
_LINK = ("LARDER_LINK_LATENCY", "LARDER_LINK_BANDWIDTH")


def require_store_for(app: App, command: str, shards: str = "") -> None:
    """Raise an error if a measuring command needs a store that is not set, or that nothing answers for.

    Args:
        app: The run.
        command: Name of the command.
        shards: URI of the shards that a word of the command line names.

    Raises:
        ConfigurationError: If no store is set, or it can't be made distant.
        ServiceError: If nothing answers at its address.
    """
    need = _need(app, command, shards or app.settings.get("LARDER_SHARDS"))
    if not need or app.dry_run:
        return
    app.choose_runner()
    settings = app.settings
    if not settings.store and local_store.find_store_file(settings) is None:
        raise ConfigurationError(
            f"{need} needs a store, and none is set",
            next_step=f"`{app.typed_command('s3-up')}` starts one on this machine; or set S3_BUCKET and your store in "
            ".env",
        )
    values = dotenv.read([settings.root / file for file in local_store.env_files(settings)], app.environ)
    if need.startswith("ARM=") and not local_store.find_bucket(settings):
        raise ConfigurationError(
            f"{need} reads from a bucket, and S3_BUCKET is not set", next_step="set S3_BUCKET to the bucket's name"
        )
    translated = {} if app.is_compose else local_store.endpoint_for_host(settings)
    endpoint = (
        translated.get("S3_ENDPOINT_URL") or local_store.endpoint_of(settings) or values.get("S3_ENDPOINT_URL", "")
    )
    if need in _LINK:
        require_plain_http(endpoint)
    _require_answer(app, endpoint)


def _need(app: App, command: str, shards: str) -> str:
    """Return what needs a store, as the user knows it; nothing if a command works without one."""
    if command == "compare":
        names = [name for name in _LINK if app.settings.get(name)]
        return names[0] if names else "LARDER_SHARDS" if shards.startswith("s3://") else ""
    return "" if app.settings.arm in _READ_NO_BUCKET else f"ARM={app.settings.arm}"


def _require_answer(app: App, endpoint: str) -> None:
    """Raise ServiceError if the store isn't there. What only a container can find out is left to the stage."""
    if isinstance(app.runner, ComposeRunner) and endpoint == local_store.CONTAINER_ENDPOINT:
        if not app.capture(app.runner.list_running("minio"))[1].strip():
            raise ServiceError(
                "the store on this machine isn't running", next_step=f"start it: `{app.typed_command('s3-up')}`"
            )
        return
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # the stage explains it
        return
    has_proxy = any(app.environ.get(name) for name in (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY"))
    if not host or has_proxy or (app.is_compose and host in _LOOPBACK):
        return
    try:
        socket.create_connection((host, port), _SECONDS).close()
    except OSError as error:
        raise ServiceError(
            f"nothing answers at the store's address, {printable(host)} port {port}: {error.strerror or error}",
            next_step=f"correct S3_ENDPOINT_URL, or start the store; `{app.typed_command('s3-up')}` starts one here",
        ) from None
