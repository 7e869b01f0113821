"""S3 keys for the object store, made at Keystone, and the files that get them.

The access key follows from stack, user and project (see marks): it is found again without a file, and made once. The
secret is random; Keystone keeps it, so lost files are written anew.
"""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openstack import exceptions as sdk

from larder.errors import ConfigurationError
from provision import answers, marks
from provision.clouds import make
from provision.stack import Stack


@dataclass(frozen=True)
class Keys:
    """One pair of S3 keys."""

    id: str
    access: str
    secret: str

    def __repr__(self) -> str:
        return f"Keys({self.access})"

    def checked(self) -> Keys:
        """The same. ServiceError for what is no id or no key: files of settings get keys as they are."""
        answers.identifier(self.id, "the id of the S3 keys")
        answers.s3_key(self.secret, "the secret of the S3 keys")
        return self


def find(stack: Stack) -> Keys | None:
    """This stack's keys, as Keystone has them."""
    cloud = stack.clouds.objects
    access = marks.access_key(stack.name, cloud.user_id, cloud.project_id)
    with stack.step("look for the S3 keys", cloud):
        answer = cloud.connection.identity.get("/credentials", params={"user_id": cloud.user_id, "type": "ec2"})
        sdk.raise_from_response(answer)
        found = [_keys(item) for item in answer.json()["credentials"]]
    return next((keys.checked() for keys in found if keys and keys.access == access), None)


def _keys(credential: Any) -> Keys | None:
    """The pair in a credential of Keystone's, which takes any text from others: None where it is something else."""
    try:
        blob = json.loads(credential["blob"])
        return Keys(credential["id"], blob["access"], blob["secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def create(stack: Stack) -> Keys:
    """Make keys, or return those that are there."""
    cloud = stack.clouds.objects
    if cloud.restricted:
        raise ConfigurationError(
            f"{cloud}: a restricted application credential can't make S3 keys",
            next_step="make an unrestricted one in the site's web interface (Identity → Application Credentials), or "
            "log in with the password",
        )  # fmt: skip
    return find(stack) or make(cloud, "make S3 keys", lambda: _create(stack), lambda: find(stack))


def _create(stack: Stack) -> Keys:
    cloud = stack.clouds.objects
    access = marks.access_key(stack.name, cloud.user_id, cloud.project_id)
    secret = secrets.token_hex(16)
    blob = json.dumps({"access": access, "secret": secret})
    body = {"type": "ec2", "user_id": cloud.user_id, "project_id": cloud.project_id, "blob": blob}
    answer = cloud.connection.identity.post("/credentials", json={"credential": body})
    sdk.raise_from_response(answer)
    return Keys(answer.json()["credential"]["id"], access, secret).checked()


def revoke(stack: Stack, keys: Keys) -> None:
    """Delete the keys at Keystone. The files still have them: see `remove`."""
    with stack.step("revoke the S3 keys", stack.clouds.objects):
        answer = stack.clouds.objects.connection.identity.delete(f"/credentials/{keys.id}")
        if answer.status_code != 404:
            sdk.raise_from_response(answer)


def s3_endpoint(stack: Stack) -> str:
    """The S3 interface's address: as declared, or Swift's host and port, as Ceph and Swift have it."""
    assert stack.declaration.credentials
    return stack.declaration.credentials.s3_endpoint or answers.base_url(
        stack.clouds.objects.endpoint("object-store"), "the object store's address in the catalog"
    )


def settings(stack: Stack, keys: Keys) -> dict[str, str]:
    """What `.env` gets."""
    assert stack.declaration.bucket
    return {
        "S3_ENDPOINT_URL": s3_endpoint(stack), "S3_BUCKET": stack.declaration.bucket.name,
        "AWS_ACCESS_KEY_ID": keys.access, "AWS_SECRET_ACCESS_KEY": keys.secret,
    }  # fmt: skip


def _section(stack: Stack, keys: Keys) -> dict[str, str]:
    return {
        "type": "s3", "provider": "Ceph", "endpoint": s3_endpoint(stack), "access_key_id": keys.access,
        "secret_access_key": keys.secret,
    }  # fmt: skip


def up_to_date(stack: Stack, keys: Keys) -> bool:
    """Whether both files have the keys, and nobody else may read them."""
    wanted = stack.declaration.credentials
    assert wanted
    env, remotes = read(wanted.env_file), parsed(wanted.rclone_config)
    section = dict(remotes[wanted.rclone_remote]) if remotes.has_section(wanted.rclone_remote) else {}
    return (with_settings(env, settings(stack, keys)) == env and section == _section(stack, keys)
            and not any(path.stat().st_mode & 0o077 for path in (wanted.env_file, wanted.rclone_config)))  # fmt: skip


def write(stack: Stack, keys: Keys) -> list[Path]:
    """Put the keys into `.env` and rclone's configuration; whatever else stands there stays."""
    wanted = stack.declaration.credentials
    assert wanted
    _keep_others(stack, wanted.env_file, f"AWS_ACCESS_KEY_ID={keys.access}" not in read(wanted.env_file).splitlines())
    replace(wanted.env_file, with_settings(read(wanted.env_file), settings(stack, keys)))
    remotes = parsed(wanted.rclone_config)
    theirs = remotes.has_section(wanted.rclone_remote) and (
        remotes.get(wanted.rclone_remote, "access_key_id", fallback="") != keys.access
    )
    _keep_others(stack, wanted.rclone_config, theirs)
    remotes[wanted.rclone_remote] = _section(stack, keys)
    _write_remotes(wanted.rclone_config, remotes)
    return [wanted.env_file, wanted.rclone_config]


def _keep_others(stack: Stack, path: Path, changes: bool) -> None:
    """Copy a file beside itself, once, before keys of others in it give way to ours."""
    place = path.with_name(f"{path.name}.before-{stack.name}")
    if changes and path.exists() and not place.exists():
        replace(place, read(path))
        stack.say("keep", f"a copy of {path} as it was: {place}")


def remove(stack: Stack) -> list[Path]:
    """Take the stack's keys out of both files, also those that Keystone has no more; returns the files that changed."""
    wanted, cloud = stack.declaration.credentials, stack.clouds.objects
    changed: list[Path] = []
    if wanted is None:
        return changed
    access = marks.access_key(stack.name, cloud.user_id, cloud.project_id)
    remotes = parsed(wanted.rclone_config)  # first: where it can't be read, both stay as they are
    before = read(wanted.env_file)
    values = dict(line.strip().split("=", 1) for line in before.splitlines() if "=" in line)
    if values.get("AWS_ACCESS_KEY_ID") == access:
        keys = Keys("", access, values.get("AWS_SECRET_ACCESS_KEY", ""))
        replace(wanted.env_file, without_settings(before, settings(stack, keys)))
        changed.append(wanted.env_file)
    if remotes.get(wanted.rclone_remote, "access_key_id", fallback="") == access:
        remotes.remove_section(wanted.rclone_remote)
        _write_remotes(wanted.rclone_config, remotes)
        changed.append(wanted.rclone_config)
    return changed


def read(path: Path) -> str:
    """A file's text, empty when there is none."""
    return path.read_text() if path.exists() else ""


def with_settings(text: str, values: Mapping[str, str]) -> str:
    """`.env` with the values set, each in the place where it stood; all other lines as they were."""
    lines, left = text.splitlines(), dict(values)
    for at, line in enumerate(lines):
        name = _name(line)
        if name in values:
            lines[at] = f"{name}={values[name]}"  # every one, since the last counts
            left.pop(name, None)
    return "\n".join([*lines, *(f"{name}={value}" for name, value in left.items()), ""])


def without_settings(text: str, values: Mapping[str, str]) -> str:
    """`.env` without those lines that set exactly these values."""
    return "".join(line for line in text.splitlines(keepends=True)
                   if line.strip() not in {f"{name}={value}" for name, value in values.items()})  # fmt: skip


def _name(line: str) -> str:
    found = re.match(r"\s*(?:export\s+)?([A-Z0-9_]+)\s*=", line)
    return found[1] if found else ""


def parsed(path: Path) -> configparser.RawConfigParser:
    """rclone's configuration."""
    remotes = configparser.RawConfigParser(default_section="", delimiters=("=",), interpolation=None)
    remotes.optionxform = str  # type: ignore[assignment,method-assign]
    text = read(path)
    try:
        remotes.read_string(text)
    except configparser.Error as error:
        encrypted = "RCLONE_ENCRYPT" in text
        raise ConfigurationError(
            f"{path}: {'it is encrypted, which only rclone reads' if encrypted else _without_text(error)}",
            next_step="name another file as [credentials] rclone_config" if encrypted else "correct that file",
        ) from None
    return remotes


def _without_text(error: configparser.Error) -> str:
    """What is wrong, without the line itself, which may hold a secret."""
    if not isinstance(error, configparser.ParsingError):
        return str(error)
    lines = [number for number, _ in getattr(error, "errors", ())] or [getattr(error, "lineno", 0)]
    return f"it can't be understood in line {', '.join(map(str, lines))}"


def _write_remotes(path: Path, remotes: configparser.RawConfigParser) -> None:
    text = io.StringIO()
    remotes.write(text)
    replace(path, text.getvalue())


def replace(path: Path, text: str) -> None:
    """Write a file that holds a secret: mode 0600, whole or not at all. Through a link, the file that it names."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600 from the first byte on
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def shown(settings: Mapping[str, str]) -> str:
    """The keys for a person's eyes, secret included: once, when they are made."""
    return "\n".join(f"{name}={value}" for name, value in settings.items())
