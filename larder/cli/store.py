"""Whose store a command uses, and the keys of the one that `s3-up` starts."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from larder.cli.settings import Settings
from larder.errors import ConfigurationError, explain_os_error

IN_CONTAINERS = "http://minio:9000"
ON_HOST = "http://127.0.0.1:8333"


def files(settings: Settings) -> tuple[Path, ...]:
    """Return the files whose variables a stage gets: `.env`, and the store's where the user has none of their own."""
    found = [Path(".env")] if (settings.root / ".env").exists() else []
    if not settings.store and (settings.will_have_keys or (settings.root / settings.store_file).is_file()):
        found.append(settings.store_file)
    return tuple(found)


def hidden(settings: Settings) -> tuple[str, ...]:
    """Return the variables that are empty in the environment: they are not set, and would hide what a file sets."""
    return tuple(sorted(name for name, value in settings.environ.items()
                        if not value and (name in settings.files or name in _WRITTEN)))  # fmt: skip


_WRITTEN = ("S3_ENDPOINT_URL", "S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def new_keys(endpoint: str) -> dict[str, str]:
    """Return the settings of a new store, with keys that nobody else has."""
    return dict(zip(_WRITTEN, (endpoint, "larder", "larder" + secrets.token_hex(7), secrets.token_hex(20))))


def require_ours(settings: Settings) -> None:
    """Raise ConfigurationError when the settings name a store that `s3-up` doesn't start."""
    if not settings.store:
        return
    if settings.runner == "host" or settings.get("S3_ENDPOINT_URL") == IN_CONTAINERS:
        return
    raise ConfigurationError(
        f"the store's settings are yours ({' '.join(settings.store)}), and not those of the store that s3-up starts",
        next_step=f"unset them, and s3-up makes its own; or set S3_ENDPOINT_URL={IN_CONTAINERS}, too",
    )


def make_keys(settings: Settings) -> None:
    """Make up the store's keys, once, unless the user has a store."""
    require_ours(settings)
    if not settings.store:
        values = new_keys(ON_HOST if settings.runner == "host" else IN_CONTAINERS)
        write_once(settings.root / settings.store_file, as_file(values))


def as_file(values: Mapping[str, str]) -> str:
    """Return variables as the text of an env file."""
    return "".join(f"{name}={value}\n" for name, value in values.items())


def write_once(path: Path, text: str) -> bool:
    """Write a file that only its owner may read, unless it is there. Returns whether it was written.

    The file appears whole: of two commands at once, one writes it.
    """
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        if path.is_file() and path.stat().st_size:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
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
        new.unlink(missing_ok=True)
