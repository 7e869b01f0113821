"""What is free for a lease, and when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from larder.errors import InputError
from provision import capacity, servers
from provision.declaration import Declaration
from provision.reservations import NoCapacityError

NINE = datetime(2030, 6, 3, 9, tzinfo=UTC)
Answers = Callable[..., Any]


def at(hours: float) -> datetime:
    return NINE + timedelta(hours=hours)


def stack(**lease: Any) -> Any:
    table = {
        "name": "lab",
        "server": {"key": "k", "flavor": "g1.h100.pci.1"},
        "lease": {"hours": 2, "start": NINE, **lease},
    }
    return SimpleNamespace(declaration=Declaration.model_validate(table))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Sets what Blazar answers, by the last part of the path."""
    flavor = SimpleNamespace(id="f", name="g1.h100.pci.1", vcpus=2, ram=8, disk=1)
    monkeypatch.setattr(servers, "find_flavor", lambda stack, name: flavor)

    def give(**lists: Any) -> None:
        monkeypatch.setattr(capacity, "_read_list", lambda stack, key, path, query=None: lists.get(key))

    return give


def host(id: int, **properties: Any) -> dict[str, Any]:
    return {"id": str(id), "vcpus": 4, "memory_mb": 64, "local_gb": 10, **properties}


def held(id: int, *hours: tuple[float, float]) -> dict[str, Any]:
    times = [{"start_date": f"{at(begin):%Y-%m-%dT%H:%M:00.000000}", "end_date": f"{at(end):%Y-%m-%dT%H:%M:00.000000}"}
             for begin, end in hours]  # fmt: skip
    return {"resource_id": str(id), "reservations": times}


def segment(begin: float, end: float, available: int) -> dict[str, Any]:
    form = "%Y-%m-%d %H:%M"
    return {"start": f"{at(begin):{form}}", "end": f"{at(end):{form}}", "available": available, "total": 28}


@pytest.mark.parametrize(
    ("busy", "begin"),
    [
        ([], 0),
        ([(-5, 0), (2, 9)], 0),
        ([(-5, 1)], 1),
        ([(1, 3), (-1, 0.5)], 3),
        ([(1.5, 3), (4, 6), (5.5, 7)], 7),
        ([(1.5, 3), (5, 6)], 3),
        ([(0, 10), (1, 2)], 10),
    ],
)
def test_the_first_gap_that_is_long_enough(busy: list[tuple[float, float]], begin: float) -> None:
    assert capacity._first_start([(at(start), at(end)) for start, end in busy], (NINE, at(2))) == at(begin)


def test_nodes_of_a_type(answers: Answers) -> None:
    hosts = [host(1, node_type="gpu_a100"), host(2, node_type="gpu_a100"), host(3, node_type="compute_skylake")]
    down = [host(4, node_type="gpu_a100", reservable=False), host(5, node_type="gpu_a100", disabled=True)]
    wanted = stack(node_type="gpu_a100")
    answers(hosts=hosts + down, allocations=[held(1, (1, 3)), held(3)])
    seen = capacity.describe(wanted)
    assert seen.text == "there is capacity: 1 of 2 nodes of the type gpu_a100 aren't reserved in that time"
    assert seen.fault is None

    answers(hosts=hosts, allocations=[held(1, (1, 3), (4, 7)), held(2, (-9, 5.5))])
    seen = capacity.describe(wanted)
    assert seen.next_start == at(5.5) and "one is free for 2 h from 2030-06-03 14:30 UTC on" in seen.text
    assert isinstance(seen.fault, NoCapacityError) and 'start = "2030-06-03 14:30"' in seen.fault.next_step

    answers(hosts=hosts)
    assert "2 nodes; this site doesn't tell" in capacity.describe(wanted).text
    answers()
    assert capacity.describe(wanted).text == capacity.UNKNOWN
    with pytest.raises(InputError, match="there are: compute_skylake, gpu_a100"):
        answers(hosts=hosts, allocations=[])
        capacity.describe(stack(node_type="gpu_h100"))


def test_a_flavor_as_chameleon_tells(answers: Answers) -> None:
    def told(*segments: dict[str, Any]) -> capacity.Capacity:
        answers(flavor_instances=[{"flavor_id": "f", "resource_spec": {}, "availability": list(segments)}])
        return capacity.describe(stack())

    assert "at least 3 of 28 are free" in told(segment(0, 1, 26), segment(1, 9, 3), segment(9, 720, 0)).text
    later = told(segment(0, 1, 1), segment(1, 5, 0), segment(5, 6, 2), segment(6, 8, 0), segment(8, 720, 1))
    assert later.next_start == at(8) and "all of flavor g1.h100.pci.1 are reserved in that time" in later.text
    never = told(segment(0, 720, 0))
    assert never.is_lacking and never.next_start is None and "within 30 days" in never.text
    assert never.fault and "declare [lease] start" not in never.fault.next_step


def test_a_flavor_by_hosts(answers: Answers) -> None:
    large, small = host(1), host(2, vcpus=1)
    answers(hosts=[large, small], allocations=[held(2, (0, 9))])
    assert "1 of 1 hosts that are large enough" in capacity.describe(stack()).text
    answers(hosts=[large, small], allocations=[held(1, (0, 9))])
    seen = capacity.describe(stack())
    assert "reserved, in part at least" in seen.text and not seen.is_lacking  # another server may fit beside it
    answers(hosts=[small], allocations=[])
    with pytest.raises(NoCapacityError, match="no host is large enough"):
        capacity.describe(stack())


def test_a_refused_lease_is_explained_if_the_site_tells(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = NoCapacityError("no capacity", next_step="try later")
    answers()
    assert capacity.explain(stack(node_type="gpu_a100"), refused) is refused
    answers(hosts=[host(1, node_type="gpu_a100")], allocations=[held(1, (1, 3))])
    explained = capacity.explain(stack(node_type="gpu_a100"), refused)
    assert "from 2030-06-03 12:00 UTC on" in explained.what and 'start = "2030-06-03 12:00"' in explained.next_step

    def fail(*words: Any) -> None:
        raise InputError("broken", next_step="")

    monkeypatch.setattr(capacity, "_read_list", fail)
    assert capacity.explain(stack(node_type="gpu_a100"), refused) is refused
