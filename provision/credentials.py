"""Create S3 keys at Keystone, and write them to the settings files.

The access key is derived from stack, user and project (see marks). So it can be found without a file, and is created
only once. The secret is random. Keystone keeps it, so lost files can be written again.
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
from provision.clouds import create_once
from provision.stack import Stack


@dataclass(frozen=True)
class S3Keys:
    """A pair of S3 keys."""

    id: str
    access: str
    secret: str

    def __repr__(self) -> str:
        return f"Keys({self.access})"

    def validated(self) -> S3Keys:
        """Return the keys. Raises ServiceError if they are invalid, since they are written to files unescaped."""
        answers.validate_identifier(self.id, "the id of the S3 keys")
        answers.validate_s3_key(self.secret, "the secret of the S3 keys")
        return self


def find(stack: Stack) -> S3Keys | None:
    """Return this stack's keys from Keystone, or None."""
    cloud = stack.clouds.objects
    access = marks.access_key(stack.name, cloud.user_id, cloud.project_id)
    with stack.translate_errors("look for the S3 keys", cloud):
        answer = cloud.client("identity").get("/credentials", params={"user_id": cloud.user_id, "type": "ec2"})
        sdk.raise_from_response(answer)
        all_keys = [_keys(item) for item in answer.json()["credentials"]]
    return next((keys.validated() for keys in all_keys if keys and keys.access == access), None)


def _keys(credential: Any) -> S3Keys | None:
    """Return the keys in a Keystone credential, or None if it holds something else: any text is allowed there."""
    try:
        blob = json.loads(credential["blob"])
        return S3Keys(credential["id"], blob["access"], blob["secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def create(stack: Stack) -> S3Keys:
    """Create keys, or return the existing ones."""
    cloud = stack.clouds.objects
    if cloud.restricted:
        raise ConfigurationError(
            f"{cloud}: a restricted application credential can't create S3 keys",
            next_step="create an unrestricted one in the site's web interface (Identity → Application Credentials), or "
            "log in with the password",
        )
    return find(stack) or create_once(cloud, "make S3 keys", lambda: _create(stack), lambda: find(stack))


def _create(stack: Stack) -> S3Keys:
    cloud = stack.clouds.objects
    access = marks.access_key(stack.name, cloud.user_id, cloud.project_id)
    secret = secrets.token_hex(16)
    blob = json.dumps({"access": access, "secret": secret})
    body = {"type": "ec2", "user_id": cloud.user_id, "project_id": cloud.project_id, "blob": blob}
    answer = cloud.client("identity").post("/credentials", json={"credential": body})
    sdk.raise_from_response(answer)
    return S3Keys(answer.json()["credential"]["id"], access, secret).validated()


def revoke(stack: Stack, keys: S3Keys) -> None:
    """Delete the keys at Keystone. `remove_from_files` deletes them from the files."""
    with stack.translate_errors("revoke the S3 keys", stack.clouds.objects):
        answer = stack.clouds.objects.client("identity").delete(f"/credentials/{keys.id}")
        if answer.status_code != 404:
            sdk.raise_from_response(answer)


def s3_endpoint(stack: Stack) -> str:
    """Return the S3 address: the declared one, or Swift's host and port, which Ceph and Swift share with S3."""
    assert stack.declaration.credentials
    if stack.declaration.credentials.s3_endpoint is None:
        stack.clouds.objects.require("object-store")
    return stack.declaration.credentials.s3_endpoint or answers.validate_base_url(
        stack.clouds.objects.endpoint("object-store"), "the object store's address in the catalog"
    )


def env_settings(stack: Stack, keys: S3Keys) -> dict[str, str]:
    """Return the settings for `.env`."""
    assert stack.declaration.bucket
    return {
        "S3_ENDPOINT_URL": s3_endpoint(stack),
        "S3_BUCKET": stack.declaration.bucket.name,
        "AWS_ACCESS_KEY_ID": keys.access,
        "AWS_SECRET_ACCESS_KEY": keys.secret,
    }


def _section(stack: Stack, keys: S3Keys) -> dict[str, str]:
    return {
        "type": "s3",
        "provider": "Ceph",
        "endpoint": s3_endpoint(stack),
        "access_key_id": keys.access,
        "secret_access_key": keys.secret,
    }


def are_files_current(stack: Stack, keys: S3Keys) -> bool:
    """Return whether both files have the keys and only their owner may read them."""
    declared = stack.declaration.credentials
    assert declared
    env, remotes = read(declared.env_file), read_rclone_config(declared.rclone_config)
    section = dict(remotes[declared.rclone_remote]) if remotes.has_section(declared.rclone_remote) else {}
    return (
        with_settings(env, env_settings(stack, keys)) == env
        and section == _section(stack, keys)
        and not any(path.stat().st_mode & 0o077 for path in (declared.env_file, declared.rclone_config))
    )


def write_files(stack: Stack, keys: S3Keys) -> list[Path]:
    """Write the keys to `.env` and rclone's configuration, and keep all other content."""
    declared = stack.declaration.credentials
    assert declared
    _back_up_other_keys(
        stack, declared.env_file, f"AWS_ACCESS_KEY_ID={keys.access}" not in read(declared.env_file).splitlines()
    )
    write_secret_file(declared.env_file, with_settings(read(declared.env_file), env_settings(stack, keys)))
    remotes = read_rclone_config(declared.rclone_config)
    has_other_keys = remotes.has_section(declared.rclone_remote) and (
        remotes.get(declared.rclone_remote, "access_key_id", fallback="") != keys.access
    )
    _back_up_other_keys(stack, declared.rclone_config, has_other_keys)
    remotes[declared.rclone_remote] = _section(stack, keys)
    _write_remotes(declared.rclone_config, remotes)
    return [declared.env_file, declared.rclone_config]


def _back_up_other_keys(stack: Stack, path: Path, changes: bool) -> None:
    """Back up a file once before ours replace other keys in it."""
    backup = path.with_name(f"{path.name}.before-{stack.name}")
    if changes and path.exists() and not backup.exists():
        write_secret_file(backup, read(path))
        stack.report("keep", f"a copy of {path} as it was: {backup}")


def remove_from_files(stack: Stack) -> list[Path]:
    """Remove the stack's keys from both files, even if Keystone lacks them. Return the changed files."""
    declared, cloud = stack.declaration.credentials, stack.clouds.objects
    changed: list[Path] = []
    if declared is None:
        return changed
    access = marks.access_key(stack.name, cloud.user_id, cloud.project_id)
    remotes = read_rclone_config(declared.rclone_config)  # first: if it can't be read, both files stay unchanged
    before = read(declared.env_file)
    values = dict(line.strip().split("=", 1) for line in before.splitlines() if "=" in line)
    if values.get("AWS_ACCESS_KEY_ID") == access:
        keys = S3Keys("", access, values.get("AWS_SECRET_ACCESS_KEY", ""))
        write_secret_file(declared.env_file, without_settings(before, env_settings(stack, keys)))
        changed.append(declared.env_file)
    if remotes.get(declared.rclone_remote, "access_key_id", fallback="") == access:
        remotes.remove_section(declared.rclone_remote)
        _write_remotes(declared.rclone_config, remotes)
        changed.append(declared.rclone_config)
    return changed


def read(path: Path) -> str:
    """Return a file's text, or "" if it doesn't exist."""
    return path.read_text() if path.exists() else ""


def with_settings(text: str, values: Mapping[str, str]) -> str:
    """Return the text of `.env` with the values set in place, and all other lines unchanged."""
    lines, left = text.splitlines(), dict(values)
    for at, line in enumerate(lines):
        name = _name(line)
        if name in values:
            lines[at] = f"{name}={values[name]}"  # all of them, since the last one counts
            left.pop(name, None)
    return "\n".join([*lines, *(f"{name}={value}" for name, value in left.items()), ""])


def without_settings(text: str, values: Mapping[str, str]) -> str:
    """Return the text of `.env` without the lines that set exactly these values."""
    return "".join(
        line
        for line in text.splitlines(keepends=True)
        if line.strip() not in {f"{name}={value}" for name, value in values.items()}
    )


def _name(line: str) -> str:
    match = re.match(r"\s*(?:export\s+)?([A-Z0-9_]+)\s*=", line)
    return match[1] if match else ""


def read_rclone_config(path: Path) -> configparser.RawConfigParser:
    """Parse rclone's configuration. Raises ConfigurationError if that fails."""
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
    """Describe a parser's error without the line itself, which may hold a secret."""
    if not isinstance(error, configparser.ParsingError):
        return str(error)
    lines = [number for number, _ in getattr(error, "errors", ())] or [getattr(error, "lineno", 0)]
    return f"it can't be understood in line {', '.join(map(str, lines))}"


def _write_remotes(path: Path, remotes: configparser.RawConfigParser) -> None:
    text = io.StringIO()
    remotes.write(text)
    write_secret_file(path, text.getvalue())


def write_secret_file(path: Path, text: str) -> None:
    """Write a file with a secret, atomically and with mode 0600. Follows links."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # has mode 0600 from the start
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def format_settings(settings: Mapping[str, str]) -> str:
    """Return the keys as text, including the secret; shown once, when they are created."""
    return "\n".join(f"{name}={value}" for name, value in settings.items())
