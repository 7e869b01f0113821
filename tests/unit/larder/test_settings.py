"""Settings: their sources, every fault at once, no secrets."""

import pytest
from pydantic import Field, SecretStr, ValidationError

from larder.errors import ConfigurationError
from larder.settings import Settings, settings_of
from larder.store import SET_STORE, BucketSettings, StoreSettings, make_client


class Example(Settings):
    count: int = Field(1, alias="EXAMPLE_COUNT", ge=1, description="a count")
    key: SecretStr = Field(SecretStr("-"), alias="EXAMPLE_KEY", min_length=1, max_length=3, description="a secret")
    force: bool = Field(False, alias="EXAMPLE_FORCE", description="a switch")
    where: str = Field("", alias="EXAMPLE_WHERE", pattern="^http", validate_default=False, description="a URL")


def load(*flags: str, **environ: str) -> Example:
    return Example.load("example", flags, environ)


def test_flag_beats_environment_beats_default() -> None:
    assert load().count == 1
    assert load(EXAMPLE_COUNT="2").count == 2
    assert load("--count=3", EXAMPLE_COUNT="2").count == 3


def test_empty_is_not_set() -> None:
    assert load(EXAMPLE_COUNT="").count == 1


@pytest.mark.parametrize(("flags", "value"), [([], False), (["--force"], True), (["--force=no"], False)])
def test_switch(flags: list[str], value: bool) -> None:
    assert load(*flags).force is value


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        load().count = 2  # type: ignore[misc]


def test_every_fault_at_once_without_secrets() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(
            "--count=none",
            "--keys",
            "s3cr3t",
            "--other=s3cr3t",
            EXAMPLE_KEY="s3cr3t",
            EXAMPLE_WHERE="ftp://me:s3cr3t@host/x?s3cr3t",
        )
    what = caught.value.what
    assert what.startswith("the configuration has 5 faults:")
    for part in ("--keys", "--other", "--count='none'", "EXAMPLE_KEY (environment)", "EXAMPLE_WHERE"):
        assert part in what
    assert "s3cr3t" not in what
    assert "--help" in caught.value.next_step


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"EXAMPLE_COUNT": "none"}, "EXAMPLE_COUNT (environment)='none': must be a whole number"),
        ({"EXAMPLE_COUNT": "0"}, "='0': must be 1 or more"),
        ({"EXAMPLE_FORCE": "maybe"}, "='maybe': must be true or false"),
        ({"EXAMPLE_WHERE": "ftp"}, "='ftp': must match the pattern ^http"),
        ({"LARDER_LOG": "loud"}, "='loud': must be 'auto', 'line' or 'json'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_faults_are_in_words(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**given)
    assert caught.value.what.endswith(says)


def test_a_word_without_a_flag() -> None:
    with pytest.raises(ConfigurationError, match=r"'photos\.zip': settings are given as --flag=value"):
        load("photos.zip")


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for setting in settings_of(Example):
        assert (setting.flag in text) is not setting.secret, "other users see a process's arguments"
        assert setting.names[0] in text


def test_an_endpoint_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        StoreSettings.load("extract", [], {"S3_ENDPOINT_URL": "http://me:s3cr3t@localhost:9000"})
    assert "without user and password" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_temporary_keys_are_used_whole() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    credentials = make_client(StoreSettings.load("extract", [], keys))._request_signer._credentials  # type: ignore[attr-defined]
    assert (credentials.access_key, credentials.secret_key, credentials.token) == ("k", "s", "t")


def test_a_missing_bucket_leads_to_a_store() -> None:
    with pytest.raises(ConfigurationError) as missing:
        BucketSettings.load("load", [], {})
    assert str(missing.value.next_step).startswith(f"{SET_STORE}; see ")
    with pytest.raises(ConfigurationError) as other:
        BucketSettings.load("load", ["--bucket=a/b"], {})
    assert SET_STORE not in str(other.value.next_step)
