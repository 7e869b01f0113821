"""Create S3 keys at Keystone, and write them to the settings files.

The access key is derived from stack, user and project (see marks). So it can be found without a file, and is created
only once. The secret is random. Keystone keeps it, so lost files can be written again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openstack import exceptions as sdk

from larder.errors import ConfigurationError
from provision import answers, marks
from provision.clouds import create_once
from provision.host.keys import (
    KeyFiles,
    KeysError,
    read_rclone_config,
    read_text,
    write_rclone_config,
    write_secret_file,
)
from provision.marks import Resource
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


def list_ours(stack: Stack) -> list[Resource]:
    """Return this stack's keys as a resource, if there are any."""
    stack.clouds.objects.require("object-store")
    keys = find(stack)
    return [Resource("credentials", keys.access, keys.id, "", "S3 keys")] if keys else []


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
    return find(stack) or create_once(
        cloud, "make S3 keys", lambda: _create(stack), lambda: find(stack), stack.note("credentials")
    )


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


def rclone_section(stack: Stack, keys: S3Keys) -> dict[str, str]:
    """Return the section for rclone's configuration."""
    return {
        "type": "s3",
        "provider": "Ceph",
        "endpoint": s3_endpoint(stack),
        "access_key_id": keys.access,
        "secret_access_key": keys.secret,
    }


def _files(stack: Stack) -> KeyFiles:
    declared = stack.declaration.credentials
    assert declared
    return KeyFiles(declared.env_file, declared.rclone_config, declared.rclone_remote, stack.name)


def are_files_current(stack: Stack, keys: S3Keys) -> bool:
    """Return whether both files have the keys and only their owner may read them."""
    with _translate_keys_errors():
        return _files(stack).are_current(env_settings(stack, keys), rclone_section(stack, keys))


def write_files(stack: Stack, keys: S3Keys) -> None:
    """Write the keys to `.env` and rclone's configuration, and keep all other content."""
    with _translate_keys_errors():
        for line in _files(stack).write(env_settings(stack, keys), rclone_section(stack, keys)):
            stack.report("keys", line)


@contextmanager
def _translate_keys_errors() -> Iterator[None]:
    try:
        yield
    except KeysError as error:
        raise ConfigurationError(error.what, next_step=error.next_step) from None


def remove_from_files(stack: Stack) -> list[Path]:
    """Remove the stack's keys from both files, even if Keystone lacks them. Return the changed files."""
    declared, cloud = stack.declaration.credentials, stack.clouds.objects
    changed: list[Path] = []
    if declared is None:
        return changed
    access = marks.access_key(stack.name, cloud.user_id, cloud.project_id)
    with _translate_keys_errors():
        remotes = read_rclone_config(declared.rclone_config)  # first: if it can't be read, both files stay unchanged
        before = read_text(declared.env_file)
    values = dict(line.strip().split("=", 1) for line in before.splitlines() if "=" in line)
    if values.get("AWS_ACCESS_KEY_ID") == access:
        keys = S3Keys("", access, values.get("AWS_SECRET_ACCESS_KEY", ""))
        write_secret_file(declared.env_file, without_settings(before, env_settings(stack, keys)))
        changed.append(declared.env_file)
    if remotes.get(declared.rclone_remote, "access_key_id", fallback="") == access:
        remotes.remove_section(declared.rclone_remote)
        write_rclone_config(declared.rclone_config, remotes)
        changed.append(declared.rclone_config)
    return changed


def without_settings(text: str, values: Mapping[str, str]) -> str:
    """Return the text of `.env` without the lines that set exactly these values."""
    return "".join(
        line
        for line in text.splitlines(keepends=True)
        if line.strip() not in {f"{name}={value}" for name, value in values.items()}
    )


def format_settings(settings: Mapping[str, str]) -> str:
    """Return the keys as text, including the secret; shown once, when they are created."""
    return "\n".join(f"{name}={value}" for name, value in settings.items())
