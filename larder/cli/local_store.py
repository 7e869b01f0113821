"""Tell the user's store from the one that `s3-up` starts, and create the keys of the latter."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from larder.cli import dotenv
from larder.cli.settings import ResolvedSettings
from larder.distant.link import Link, parse_link
from larder.errors import ConfigurationError, explain_os_error

ENDPOINT_NAMES = ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Settings that name the store's address; the first one that is set wins (`larder.store.StoreSettings`)."""
CONTAINER_ENDPOINT = "http://minio:9000"
HOST_ENDPOINT = "http://127.0.0.1:8333"
_PORT = "LARDER_MINIO_PORT"
_STORE_FILE_SETTINGS = ("S3_ENDPOINT_URL", "S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def env_files(settings: ResolvedSettings) -> tuple[Path, ...]:
    """Return the files with a stage's variables: `.env`, and the local store's file if the user has no store."""
    files = [Path(".env")] if (settings.root / ".env").exists() else []
    if file := find_store_file(settings):
        files.append(file)
    return tuple(files)


def find_store_file(settings: ResolvedSettings) -> Path | None:
    """Return the file of the local store; None if there is none, or the user has a store.

    Without a store of its own, the host runner uses the one of the containers.
    """
    if settings.store:
        return None
    own, containers = settings.store_file, settings.with_runner("compose").store_file
    if settings.will_have_keys or (settings.root / own).is_file():
        return own
    return containers if settings.runner == "host" and (settings.root / containers).is_file() else None


def is_hidden_by_bucket(settings: ResolvedSettings) -> bool:
    """Return whether `s3-up` has made a store that isn't used, since the user has set a bucket and nothing else."""
    only_bucket = settings.store and set(settings.store) <= {"S3_BUCKET", "RCLONE_CONTAINER"}
    return bool(only_bucket) and (settings.root / settings.store_file).is_file()


def find_bucket(settings: ResolvedSettings) -> str:
    """Return the name of the bucket; empty if none is set."""
    return settings.get("S3_BUCKET") or settings.get("RCLONE_CONTAINER") or _read(settings).get("S3_BUCKET", "")


def _read(settings: ResolvedSettings) -> dict[str, str]:
    """Return the variables in the local store's file; none if there is no file."""
    file = find_store_file(settings)
    return dotenv.read([settings.root / file], {}) if file and (settings.root / file).is_file() else {}


def find_published_port(settings: ResolvedSettings) -> str:
    """Return the loopback port of the containers' store: of the settings, or else the one of the last `s3-up`."""
    file = settings.root / settings.with_runner("compose").store_file
    return settings.get(_PORT) or dotenv.read([file] if file.is_file() else [], {}).get(_PORT, "") or "9000"


def host_endpoint(settings: ResolvedSettings) -> str:
    """Return the containers' store's address for this machine."""
    return f"http://127.0.0.1:{find_published_port(settings)}"


def endpoint_for_host(settings: ResolvedSettings) -> dict[str, str]:
    """Return the variable that replaces the containers' address of the store for a process of this machine."""
    endpoint = endpoint_of(settings) or _read(settings).get("S3_ENDPOINT_URL", "")
    return {"S3_ENDPOINT_URL": host_endpoint(settings)} if endpoint == CONTAINER_ENDPOINT else {}


def endpoint_for_containers(settings: ResolvedSettings) -> dict[str, str]:
    """Return the variable that replaces this machine's address of the containers' store, which a shell may export."""
    endpoint, port = endpoint_of(settings), find_published_port(settings)
    here = {f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")}
    is_started = (settings.root / settings.with_runner("compose").store_file).is_file()
    return {"S3_ENDPOINT_URL": CONTAINER_ENDPOINT} if is_started and endpoint.rstrip("/") in here else {}


def endpoint_of(settings: ResolvedSettings) -> str:
    """Return the address of the user's store; empty for AWS."""
    return next(filter(None, map(settings.get, ENDPOINT_NAMES)), "")


def link_of(settings: ResolvedSettings) -> Link | None:
    """Return the link that `s3-up` puts before the store; None without one."""
    return parse_link(settings.get("LARDER_S3_LATENCY"), settings.get("LARDER_S3_BANDWIDTH"))


def masking_variables(settings: ResolvedSettings) -> tuple[str, ...]:
    """Return variables that are empty in the environment: they count as not set, but would hide a file's values."""
    return tuple(
        sorted(
            name
            for name, value in settings.environ.items()
            if not value and (name in settings.files or name in _STORE_FILE_SETTINGS)
        )
    )


def new_keys(endpoint: str) -> dict[str, str]:
    """Return the settings of a new store, with random keys."""
    return dict(zip(_STORE_FILE_SETTINGS, (endpoint, "larder", "larder" + secrets.token_hex(7), secrets.token_hex(20))))


def require_own_store(settings: ResolvedSettings) -> None:
    """Raise ConfigurationError if the settings name a store that `s3-up` doesn't start."""
    if not settings.store:
        return
    if settings.runner == "host" or endpoint_of(settings) == CONTAINER_ENDPOINT or endpoint_for_containers(settings):
        return
    other = "; for a store with http, compare has --latency and --bandwidth, too" if link_of(settings) else ""
    raise ConfigurationError(
        f"the settings name your own store ({' '.join(settings.store)}), not the one that s3-up starts",
        next_step=f"unset them, or add S3_ENDPOINT_URL={CONTAINER_ENDPOINT}{other}",
    )


def make_keys(settings: ResolvedSettings) -> None:
    """Create the store's keys once, unless the user has a store."""
    require_own_store(settings)
    if not settings.store:
        values = new_keys(HOST_ENDPOINT if settings.runner == "host" else CONTAINER_ENDPOINT)
        write_once(settings.root / settings.store_file, as_file(values))


def remember_port(settings: ResolvedSettings, port: str) -> None:
    """Write the published port into the store's file, which compose and later commands read."""
    path = settings.root / settings.store_file
    if settings.store or dotenv.read([path], {}).get(_PORT, "9000") == port:
        return
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith(f"{_PORT}=")]
    new = _write_beside(path, "\n".join([*lines, f"{_PORT}={port}", ""]))
    new.replace(path)


def as_file(values: Mapping[str, str]) -> str:
    """Format variables as an env file."""
    return "".join(f"{name}={value}\n" for name, value in values.items())


def write_once(path: Path, text: str) -> bool:
    """Write a file that only its owner may read, unless it exists. Return whether it was written.

    The file appears complete. Of several concurrent calls, only one writes it.
    """
    new = None
    try:
        if path.is_file() and path.stat().st_size:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        new = _write_beside(path, text)
        if path.is_file() and not path.stat().st_size:
            os.replace(new, path)
            return True
        try:
            os.link(new, path)
        except FileExistsError:
            return False
        return True
    except OSError as error:
        raise explain_os_error(error) or error from None
    finally:
        if new is not None:
            new.unlink(missing_ok=True)


def _write_beside(path: Path, text: str) -> Path:
    """Write a new file in the same folder that only its owner may read, and return its path."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return new
