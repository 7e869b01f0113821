"""Errors: exit codes, both parts, between processes."""

import errno
import pickle
import subprocess
import sys

import pytest

from larder import errors
from larder.errors import InputError, without_causes


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigurationError, 2),
        (errors.InputError, 3),
        (errors.StorageError, 3),
        (errors.RejectedSamplesError, 4),
        (errors.ServiceError, 5),
    ],
)
def test_exit_codes_and_pickle(kind: type[errors.LarderError], code: int) -> None:
    error = pickle.loads(pickle.dumps(kind("what", next_step="next")))
    assert (type(error), error.what, error.next_step, error.exit_code) == (kind, "what", "next", code)


def test_an_error_needs_a_next_step() -> None:
    with pytest.raises(TypeError):
        errors.InputError("what")  # type: ignore[call-arg]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_disk_faults_have_a_next_step(number: int) -> None:
    error = errors.explain_os_error(OSError(number, "x", "/some/new\nfile"))
    assert error is not None
    assert error.exit_code == 3
    assert error.what.startswith(r"'/some/new\nfile': ")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EBADF, None])
def test_our_own_faults_are_not(number: int | None) -> None:
    assert errors.explain_os_error(OSError(number, "x") if number else OSError("x")) is None


def test_a_traceback_has_the_next_step_and_no_causes() -> None:
    """As a script shows it that uses the library."""
    script = """
from larder.errors import ServiceError, without_causes

@without_causes()
def called_by_users():
    try:
        raise OSError("refused")
    except OSError as error:
        raise ServiceError("the store doesn't answer", next_step="run `s3 check`") from error

called_by_users()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith(
        "larder.errors.ServiceError: the store doesn't answer\n  next step: run `larder s3-check`\n"
    )
    assert "refused" not in ended.stderr
    assert ended.stderr.count("Traceback") == 1


def test_programs_still_find_the_cause() -> None:
    with pytest.raises(InputError) as caught, without_causes(), without_causes():
        raise InputError("what", next_step="next") from KeyError("cause")
    assert isinstance(caught.value.cause, KeyError)
    assert caught.value.__cause__ is None


def test_other_errors_keep_their_causes() -> None:
    with pytest.raises(ValueError, match="other") as caught, without_causes():
        raise ValueError("other") from KeyError("cause")
    assert isinstance(caught.value.__cause__, KeyError)
