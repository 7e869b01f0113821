"""Errors: exit codes, both parts, between processes."""

import errno
import pickle

import pytest

from larder import errors


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
