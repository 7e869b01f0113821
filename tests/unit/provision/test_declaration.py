"""The declaration: the examples are valid, and every fault is named at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from larder.errors import ConfigurationError
from provision.declaration import Declaration, load_declaration

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "provision" / "examples").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(path: Path, tmp_path: Path) -> None:
    _load(tmp_path, path.read_text().replace("netID", "ab1234"))


def test_example_names_must_be_replaced(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, 'name = "lab-netID"\n[bucket]\nname = "object-netID"\n[[share]]\nname = "s-netID"\ngib = 1\n')
    assert caught.value.what.count("your own netID") == 3


def test_there_is_an_example_for_each_case() -> None:
    names = ["any-cloud", "block", "boot-volume", "gpu", "jupyter-block", "jupyter-object", "object", "share"]
    assert [path.stem for path in EXAMPLES] == names


def _load(folder: Path, text: str) -> Declaration:
    path = folder / "provision.toml"
    path.write_text(text)
    return load_declaration(path)


def test_defaults(tmp_path: Path) -> None:
    declared = _load(tmp_path, 'name = "a"\n[server]\nkey = "k"\n[[security_group]]\nname = "s"\nports = [22]\n')
    assert declared.server and declared.server.image == "CC-Ubuntu24.04" and declared.server.boot_volume is None
    assert declared.security_groups[0].sources == ("caller",)
    assert declared.lease is None and declared.sites.objects is None


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    text = """
name = "a b"
colour = "red"
[lease]
hours = 0
[server]
flavor = 3
[[volume]]
name = "v"
gib = 1.5
mount = "mnt"
[[volume]]
name = "v"
gib = 1
[[security_group]]
name = "s"
ports = [70000]
sources = ["everybody"]
[bucket]
name = "x"
"""
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, text)
    for place in (
        "name:",
        "colour: no such key",
        "lease.hours:",
        "server.flavor:",
        "server.key: is missing",
        "volume.1.gib:",
        "volume.1.mount:",
        "security_group.1.ports:",
        "security_group.1.sources:",
        "bucket.name:",
        "[[volume]] name 'v' is declared twice",
    ):
        assert place in caught.value.what, place
    assert caught.value.exit_code == 2 and "provision/examples" in caught.value.next_step


@pytest.mark.parametrize("mount", ["/mnt/q/../z", "/mnt/./z", "/..", "mnt", "/mnt/", "/", "/mnt//z", "/mnt/a b"])
def test_a_mount_point_has_one_name_only(tmp_path: Path, mount: str) -> None:
    for kind in ("volume", "share"):
        with pytest.raises(ConfigurationError, match=rf"{kind}\.1\.mount: must"):
            _load(tmp_path, f'name = "a"\n[server]\nkey = "k"\n[[{kind}]]\nname = "v"\ngib = 1\nmount = "{mount}"\n')


def test_folders_with_dots_in_their_names_are_mount_points(tmp_path: Path) -> None:
    text = 'name = "a"\n[server]\nkey = "k"\n[[volume]]\nname = "v"\ngib = 1\nmount = "/mnt/..z/a.b/..."\n'
    assert _load(tmp_path, text).volumes[0].mount == "/mnt/..z/a.b/..."


def test_a_share_is_served_over_nfs_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"share\.1\.protocol: no such key"):
        _load(tmp_path, 'name = "a"\n[[share]]\nname = "v"\ngib = 1\nprotocol = "CIFS"\n')


def test_git_ignores_the_user_s_declarations() -> None:
    names = ["provision.toml", "provision-block.toml"]
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == names


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ('{ auth_url = "https://a.example.org:5000/v3", region = "A" }', ""),
        ('{ cloud = "a", auth_url = "https://a.example.org" }', "sites.compute: give cloud or auth_url"),
        ('{ auth_url = "a.example.org" }', "sites.compute.auth_url:"),
        ('{ auth_url = "https://user:pw@a.example.org" }', "sites.compute.auth_url:"),
        ('{ auth_url = "file:///etc" }', "sites.compute.auth_url:"),
    ],
    ids=["address", "both", "no scheme", "password", "file"],
)
def test_a_site_has_one_address(tmp_path: Path, site: str, says: str) -> None:
    text = f'name = "a"\n[sites]\ncompute = {site}\n'
    if not says:
        assert _load(tmp_path, text).sites.compute.auth_url == "https://a.example.org:5000/v3"
        return
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, text)
    assert says in caught.value.what


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[lease]\nhours = 1", "[lease] needs [server]"),
        ("[floating_ip]", "[floating_ip] needs [server]"),
        ("[host]", "[host] needs [server]"),
        ('[[volume]]\nname = "v"\ngib = 1\nmount = "/v"', "volume v: mount needs [server]"),
        ('[[volume]]\nname = "v"\ngib = 1\n[[volume]]\nname = "v"\ngib = 1', "[[volume]] name 'v' is declared twice"),
        ('[[share]]\nname = "v"\ngib = 1\nmount = "/v"', "share v: mount needs [server]"),
        ('[[share]]\nname = "v"\ngib = 1\n[[share]]\nname = "v"\ngib = 1', "[[share]] name 'v' is declared twice"),
        (
            '[[volume]]\nname = "v"\ngib = 1\n[[share]]\nname = "v"\ngib = 1',
            "share v: the name is taken by a [[volume]]",
        ),
        (
            '[server]\nkey = "k"\n[[volume]]\nname = "v"\ngib = 1\nmount = "/mnt/a"\n'
            '[[share]]\nname = "w"\ngib = 1\nmount = "/mnt/a"',
            "the mount point '/mnt/a' is declared twice",
        ),
        ("[credentials]", "[credentials] needs [bucket]"),
        ("name", "isn't valid TOML"),
    ],
    ids=[
        "lease",
        "address",
        "host",
        "mount",
        "twice",
        "share's mount",
        "share twice",
        "volume's name",
        "same mount",
        "credentials",
        "toml",
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, f'name = "a"\n{text}\n')
    assert says in caught.value.what


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("server = 1", "server:"),
        ("volume = 1", "volume:"),
        ("volume = [1]", "volume.1:"),
        ("[[volume]]\nname = [1]\ngib = 1", "volume.1.name:"),
        ("[volume]", "volume:"),
    ],
)
def test_a_value_of_the_wrong_type_hides_no_other_fault(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, f'name = "a"\n{text}\n[credentials]\n')
    assert place in caught.value.what and "[credentials] needs [bucket]" in caught.value.what


LEASE = '[server]\nkey = "k"\n[lease]\n'


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ('"2026-12-01 09:00"', "2026-12-01 09:00"),
        ('"2026-12-01 09:00-05:00"', "2026-12-01 14:00"),
        ("2026-12-01T09:00:00", "2026-12-01 09:00"),
        ("2026-12-01 09:00:00+01:00", "2026-12-01 08:00"),
    ],
)
def test_a_lease_begins_in_utc(tmp_path: Path, text: str, start: str) -> None:
    declared = _load(tmp_path, f'name = "a"\n{LEASE}hours = 2\nstart = {text}\n')
    assert declared.lease and f"{declared.lease.start:%Y-%m-%d %H:%M %Z}" == f"{start} UTC"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lease.hours: is missing; or name an existing lease with `use`"),
        ('use = "x"\nhours = 1\nnode_type = "y"', "lease.node_type: belongs to a new lease"),
        ('hours = 1\nnode_type = "gpu a100"', "lease.node_type: "),
        ('hours = 1\nstart = "tomorrow"', 'lease.start: must be a time such as "2026-12-01 09:00" (UTC)'),
        ("hours = 1\nstart = 9", "lease.start: must be a time"),
        ("hours = 1\nstart = 2026-12-01", "lease.start: must be a time"),
        ('hours = 1\nstart = "2026-12-01 09:00:30"', "lease.start: must be a whole minute"),
    ],
)
def test_a_lease_that_makes_no_sense(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, f'name = "a"\n{LEASE}{text}\n')
    assert says in caught.value.what


def test_an_address_is_reserved_by_a_lease(tmp_path: Path) -> None:
    text = 'name = "a"\n[server]\nkey = "k"\n[floating_ip]\nreserve = true\n'
    with pytest.raises(ConfigurationError, match=r"\[floating_ip\] reserve needs \[lease\]"):
        _load(tmp_path, text)
    assert _load(tmp_path, text + "[lease]\nhours = 1\n").floating_ip


def test_bare_metal_has_its_flavor_and_longer_limits(tmp_path: Path) -> None:
    node = f'name = "a"\n{LEASE}hours = 1\nnode_type = "gpu_a100"\n[limits]\nserver = 60\n'
    declared = _load(tmp_path, node)
    assert declared.server and declared.server.flavor == "baremetal"
    assert (declared.limits.server, declared.limits.ssh, declared.limits.lease) == (60, 1800, 1200)
    other = _load(tmp_path, node.replace('key = "k"', 'key = "k"\nflavor = "my-node"'))
    assert other.server and other.server.flavor == "my-node"
    used = _load(tmp_path, f'name = "a"\n{LEASE}use = "x"\n')
    assert used.server and used.server.flavor == "m1.medium" and used.limits.server == 900


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_declaration(tmp_path / "none.toml")
    assert "none.toml" in caught.value.what and "--file" in caught.value.next_step


def test_a_folder_is_no_declaration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: Is a directory"):
        load_declaration(tmp_path)


def test_addresses_become_networks(tmp_path: Path) -> None:
    declared = _load(
        tmp_path, 'name = "a"\n[[security_group]]\nname = "s"\nports = [22]\nsources = ["192.0.2.7", "2001:db8::/32"]\n'
    )
    assert declared.security_groups[0].sources == ("192.0.2.7/32", "2001:db8::/32")
