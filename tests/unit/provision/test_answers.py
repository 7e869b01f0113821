"""Invalid answers of a cloud."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from openstack import exceptions as sdk

from larder.errors import ServiceError
from provision import answers, leases, objects, server_setup, servers, volumes
from provision.clouds import Cloud, create_once, translate_cloud_errors
from provision.declaration import Site
from provision.host_scripts import Disk, Export
from provision.marks import Resource

INJECTED = "203.0.113.7\n    ProxyCommand touch /tmp/x"


@pytest.mark.parametrize("answer", ["203.0.113.7", "10.9.0.3", "2001:db8::7"])
def test_an_address_is_one(answer: str) -> None:
    assert answers.validate_address(answer, "it") == answer


@pytest.mark.parametrize(
    "answer",
    [INJECTED, "203.0.113.7\n", " 203.0.113.7", "203.0.113.0/24", "server.example.org", "-oProxyCommand=x", "0.0.0.0",
     "::", "127.0.0.1", "::1", "224.0.0.1", "fe80::1%eth0", "fe80::1%\nProxyCommand x", "010.0.0.1", "3405803783", "",
     None, 3405803783, b"203.0.113.7", ["203.0.113.7"]],
    ids=repr,
)  # fmt: skip
def test_what_is_no_address_is_reported_escaped(answer: object) -> None:
    with pytest.raises(ServiceError, match="expected: an IP address") as caught:
        answers.validate_address(answer, "the floating IP")
    assert "\n" not in caught.value.what and caught.value.next_step


@pytest.mark.parametrize(
    ("answer", "address"),
    [("8.8.8.8", "8.8.8.8"), ("2001:4860:4860::8888", "2001:4860:4860::8888"), ("::ffff:8.8.8.8", "8.8.8.8")],
)
def test_a_public_address_is_one(answer: str, address: str) -> None:
    assert answers.validate_public_address(answer, "it", "-") == address


@pytest.mark.parametrize(
    "answer",
    ["0.0.0.0/0", "8.8.8.0/24", "8.8.8.8/32", "::/0", "127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "172.16.0.1",
     "169.254.169.254", "fe80::1", "fc00::1", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1",
     "::ffff:10.0.0.1", "::ffff:127.0.0.1", "8.8.8.8, 10.0.0.1", "8.8.8.8\n9.9.9.9", "<html>", ""],
)  # fmt: skip
def test_no_network_and_no_private_address_is_public(answer: str) -> None:
    with pytest.raises(ServiceError, match="expected: a public IP address"):
        answers.validate_public_address(answer, "it", "-")


@pytest.mark.parametrize("answer", ["4711", "0b5c1f9e-7f2a-4b7e-9d55-7a1fd7a9c001", "a" * 128])
def test_an_id_is_one(answer: str) -> None:
    assert answers.validate_identifier(answer, "it") == answer


IDS = ["", "-rf", "--mount", "../x", "a/b", "a b", "a\n", "$(x)", "a;b", "é", "a" * 129, None, 7, {"id": "a"}]


@pytest.mark.parametrize("answer", IDS, ids=repr)
def test_no_id_is_an_option_a_path_or_anything_for_a_shell(answer: Any) -> None:
    for use in (
        lambda: answers.validate_identifier(answer, "it"),
        lambda: Disk(answer, 1, "/mnt", blank=True),
        lambda: Resource("volume", "block", answer, "available"),
    ):
        with pytest.raises(ServiceError, match="expected: an id"):
            use()


@pytest.mark.parametrize("answer", ["5", 5, 0])
def test_a_number_is_one(answer: Any) -> None:
    assert answers.validate_whole_number(answer, "it") == int(answer)


@pytest.mark.parametrize("answer", ["", "five", "-5", -5, 1.5, None, True, "5\n", "9" * 400, 2**63, []], ids=repr)
def test_what_is_no_number_is_reported(answer: Any) -> None:
    with pytest.raises(ServiceError, match="expected: a whole number"):
        answers.validate_whole_number(answer, "it")


@pytest.mark.parametrize(
    ("answer", "url"),
    [
        ("https://swift.example.org:7480/swift/v1/AUTH_x", "https://swift.example.org:7480"),
        ("http://[2001:db8::7]:8080/v1", "http://[2001:db8::7]:8080"),
        ("http://203.0.113.7", "http://203.0.113.7"),
    ],
)
def test_the_store_s_address_is_that_of_the_catalog(answer: str, url: str) -> None:
    assert answers.validate_base_url(answer, "it") == url


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "ftp://a/",
        "https:///x",
        "https://a b/",
        "https://user:pw@a/",
        "https://a:99999/",
        "file:///etc/passwd",
        None,
        "https://a\\nb/",
        "https://a$(x)/",
        "https://a'/",
    ],
)
def test_no_other_text_gets_into_a_file_of_settings(answer: Any) -> None:
    with pytest.raises(ServiceError, match="expected: an http address"):
        answers.validate_base_url(answer, "it")


@pytest.mark.parametrize(
    "answer",
    [
        "10.0.0.7:/shares/share-1",
        "[2001:db8::7]:/volumes/_nogroup/0b5c/7a1f",
        "nfs.example.org:/",
        "10.0.0.7:/a@b+c=~d/",
    ],
)
def test_an_nfs_export_is_one(answer: str) -> None:
    assert answers.validate_export(answer, "it") == answer
    assert Export("1", answer, "/mnt", is_new=True).source == answer


EXPORTS = [
    "", "10.0.0.7", "/shares/a", ":/a", "10.0.0.7:", "10.0.0.7:shares/a", "10.0.0.7:/a b", "10.0.0.7:/a\n/dev/vda /",
    "10.0.0.7:/a\tb", "10.0.0.7:/$(x)", "10.0.0.7:/a;b", "10.0.0.7:/a'b", '10.0.0.7:/a"b', "10.0.0.7:/a\\040b",
    "10.0.0.7:/a,b", "10.0.0.7:/a#b", "10.0.0.7:/../etc", "10.0.0.7:/a/./b", "10.0.0.7:/a/..", "10.0.0.7://a", "-o:/a",
    "--bind:/a", "10.0.0.300:/a", "1.2.3:/a", "[10.0.0.7]:/a", "2001:db8::7:/a", "[2001:db8::7%eth0]:/a", "[:]:/a",
    "é.org:/a", "10.0.0.7:/é", "a_b:/c", "user@host:/a", "//10.0.0.7/a", "10.0.0.7:/" + "a" * 1100, None, 7,
    b"10.0.0.7:/a", ["10.0.0.7:/a"],
]  # fmt: skip


@pytest.mark.parametrize("answer", EXPORTS, ids=repr)
def test_no_other_text_gets_into_fstab_or_a_command_as_an_export(answer: Any) -> None:
    for use in (lambda: answers.validate_export(answer, "it"), lambda: Export("1", answer, "/mnt", is_new=True)):
        with pytest.raises(ServiceError, match="expected: an NFS export") as caught:
            use()
        assert "\n" not in caught.value.what


@pytest.mark.parametrize("secret", ["", "a b", "s\nLARDER_SOURCE=http://x", "$(x)", 'a"b', None, 7])
def test_no_secret_of_another_form_gets_into_a_file_of_settings(secret: Any) -> None:
    with pytest.raises(ServiceError) as caught:
        answers.validate_s3_key(secret, "the secret")
    assert not secret or str(secret) not in caught.value.what


def stack_of(**parts: Any) -> Any:
    return cast(Any, SimpleNamespace(**parts))


def test_an_invalid_floating_ip_reaches_no_ssh_config(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Resource("server", "lab", "1", "ACTIVE", raw=SimpleNamespace(addresses={"net": [{"addr": INJECTED}]}))
    floating = Resource("floating IP", INJECTED, "2", "ACTIVE", raw=SimpleNamespace(port_id="3"))
    monkeypatch.setattr(server_setup.addresses, "ports_of", lambda stack, server: ["3"])
    stack = stack_of(clouds=SimpleNamespace(compute=SimpleNamespace(offers=lambda service: True)))
    for found in (floating, None):
        monkeypatch.setattr(server_setup.addresses, "find", lambda stack, found=found: found)
        with pytest.raises(ServiceError, match="expected: an IP address"):
            server_setup.address_of(stack, server)


def test_sizes_servers_and_dates_in_another_format_are_refused() -> None:
    volume = Resource(
        "volume",
        "block",
        "1",
        "available",
        raw=SimpleNamespace(size="many", metadata={}, attachments=[{"server_id": "$(x)"}]),
    )
    with pytest.raises(ServiceError, match="expected: a whole number"):
        volumes.disk(volume, stack_of(mount="/mnt"))
    with pytest.raises(ServiceError, match="expected: an id"):
        volumes.server_of(volume)
    for changed in ({"id": "../leases"}, {"end_date": "soon"}, {"end_date": None}, {"reservations": [{"id": "a b"}]}):
        item = {"id": "1", "status": "ACTIVE", "end_date": "2026-01-01T00:00:00", "reservations": []} | changed
        with pytest.raises(ServiceError):
            leases._lease(item)


@pytest.mark.parametrize("error", [KeyError("leases"), TypeError("no list"), ValueError("no JSON"), AttributeError()])
def test_an_answer_in_another_format_is_an_error_unless_the_resource_is_found(error: Exception) -> None:
    cloud = Cloud("compute", Site(), 1)

    def fails() -> str:
        raise error

    with pytest.raises(ServiceError, match="another form than expected"), translate_cloud_errors(cloud, "list"):
        fails()
    assert create_once(cloud, "make it", fails, lambda: "found") == "found"
    with pytest.raises(ServiceError, match="another form than expected"):
        create_once(cloud, "make it", fails, lambda: None)


@pytest.mark.parametrize(
    ("answer", "log"),
    [
        ({"output": "text"}, "text"),
        ("text", "text"),
        (None, ""),
        ({}, ""),
        ({"output": 3}, ""),
        ([], ""),
        ({"output": "a" * (1 << 20)}, "a" * (1 << 18)),
    ],
    ids=["dict", "text", "none", "empty", "number", "list", "much"],
)
def test_a_console_log_is_text_of_a_limited_length(answer: object, log: str) -> None:
    compute = SimpleNamespace(get_server_console_output=lambda raw, length: answer)
    stack = stack_of(api=lambda service: compute)
    assert servers.console_log(stack, Resource("server", "lab", "1", "ACTIVE")) == log


def test_a_server_without_a_console_has_an_empty_log() -> None:
    def refuses(raw: object, length: int) -> None:
        raise sdk.HttpException("no console")

    stack = stack_of(api=lambda service: SimpleNamespace(get_server_console_output=refuses))
    assert servers.console_log(stack, Resource("server", "lab", "1", "ACTIVE")) == ""


def consoled(logs: list[str], messages: list[str]) -> Any:
    """Return a stack whose server shows these logs on its console, one after another."""
    compute = SimpleNamespace(get_server_console_output=lambda raw, length: logs.pop(0) if len(logs) > 1 else logs[0])
    return stack_of(
        api=lambda service: compute,
        reporter=SimpleNamespace(event=lambda *words: None),
        report=lambda event, message: messages.append(message),
    )


ONE = "SHA256:" + "a" * 43
SHOWN = (
    f"-----BEGIN SSH HOST KEY FINGERPRINTS-----\n256 {ONE} root@vm (ED25519)\n-----END SSH HOST KEY FINGERPRINTS-----\n"
)
BOOTING = "Cloud-init v. 24.1 running 'init'\n"


@pytest.mark.parametrize(
    ("logs", "found", "says"),
    [
        ([SHOWN], {ONE}, "checked against"),
        ([BOOTING, BOOTING, BOOTING + SHOWN], {ONE}, "checked against"),
        (["FAKE CONSOLE OUTPUT"], set(), "is trusted"),
        ([""], set(), "is trusted"),
        ([BOOTING], set(), "is trusted"),
    ],
    ids=["there", "later", "none", "empty", "never"],
)
def test_host_keys_are_waited_for_while_the_server_boots(
    monkeypatch: pytest.MonkeyPatch, logs: list[str], found: set[str], says: str
) -> None:
    monkeypatch.setattr(server_setup, "CONSOLE_SECONDS", 1 if len(logs) > 1 else 0)
    monkeypatch.setattr("provision.clouds.POLL_SECONDS", 0.01)
    messages: list[str] = []
    assert server_setup._host_keys(consoled(logs, messages), Resource("server", "lab", "1", "ACTIVE")) == found
    assert len(messages) == 1 and says in messages[0]


def test_objects_whose_names_lead_elsewhere_are_deleted_by_no_request() -> None:
    asked: list[str] = []

    def delete(path: str) -> Any:
        asked.append(path)
        return SimpleNamespace(status_code=204)

    site = SimpleNamespace(client=lambda service: SimpleNamespace(delete=delete))
    stack = stack_of(clouds=SimpleNamespace(objects=site))
    names = ["a", "../other/a", "a/./b", "..", "a..b"]
    errors = objects._delete_singly(stack, "data", names)
    assert asked == ["/data/a", "/data/a..b"] and len(errors) == 3
