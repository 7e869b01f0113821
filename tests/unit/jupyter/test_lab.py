"""The functions that notebooks call, without a kernel: figures are checked as objects."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from larder.bench.run_rates import ArmRates, ComparableArms
from larder.errors import ConfigurationError, InputError, ServiceError
from services.jupyter import lab

mpl.use("agg")

MIB = 1 << 20


@pytest.fixture(autouse=True)
def front_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the front door to make."""
    monkeypatch.setenv("LARDER_FRONT_DOOR", "make")


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    yield
    plt.close("all")


def one_pass(name: str, rates: list[int], times: list[float]) -> dict[str, Any]:
    return {"pass": name, "seconds": 1.9, "network_bytes": 5 * MIB, "received": {"t_s": times, "bytes_per_s": rates}}


def test_the_area_of_the_network_s_figure_is_what_was_received() -> None:
    cold = one_pass("cold", [4 * MIB, 0, 8 * MIB, MIB], [0.0, 0.5, 1.0, 1.25, 2.0])
    warm = one_pass("warm", [4096], [0.0, 2.0])
    figure = lab.plot_network({"arm": "litdata_streaming", **cold, "then": [warm]})
    left, right = figure.axes
    for axis, area in ((left, (2 + 2 + 0.75) * MIB), (right, 8192)):
        patch: Any = axis.patches[0]
        assert len(axis.patches) == 1
        values, edges, _ = patch.get_data()
        assert np.sum(values * np.diff(edges)) * MIB == pytest.approx(area)
        assert axis.get_xlim() == (0, 1.9)
        assert axis.get_ylim() == pytest.approx((0, 8.8))
    assert "5.0 MiB of data in 1.9 s" in left.get_title()


@pytest.mark.parametrize(
    ("rates", "times"), [pytest.param([4096], [0.0, 2.0], id="noise"), pytest.param([], [], id="no-samples")]
)
def test_tiny_values_are_not_magnified(rates: list[int], times: list[float]) -> None:
    figure = lab.plot_network({"arm": "imagefolder_local", **one_pass("epoch", rates, times), "then": []})
    assert figure.axes[0].get_ylim() == (0, 1)
    figure.canvas.draw()


def test_a_batch_is_shown_in_its_colours_with_its_classes() -> None:
    import torch

    from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD

    colour = torch.tensor([0.2, 0.5, 0.8])
    normalized = (colour - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    images = normalized.view(1, 3, 1, 1).expand(8, 3, 224, 224)
    figure = lab.plot_batch(images, torch.tensor([0, 1] * 4), ["Bread", "Soup"])
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["Bread (0)", "Soup (1)"] * 4
    for axis in shown:
        pixels = np.asarray(axis.images[0].get_array())
        assert pixels.shape == (224, 224, 3)
        assert np.allclose(pixels, colour.numpy(), atol=1e-6)


def test_throughput_shows_medians_and_all_runs() -> None:
    comparison = ComparableArms(
        "on this machine", [ArmRates("fast", [180.0, 200.0, 230.0]), ArmRates("slow", [90.0, 100.0])]
    )
    [axis] = lab.plot_throughput(comparison).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["slow, 2 runs", "fast, 3 runs"], "upwards"
    bars: list[Any] = list(axis.patches)
    assert [bar.get_width() for bar in bars] == [95.0, 200.0]
    spread: Any
    [spread] = axis.collections
    ends = [(segment[0][0], segment[1][0]) for segment in spread.get_segments()]
    assert ends == [(90.0, 100.0), (180.0, 230.0)]
    assert axis.get_title(loc="left") == "on this machine"


def test_long_names_leave_room_for_the_bars() -> None:
    where = (
        "Food-11, 9,866 images of training, a whole epoch of 64, 16 workers, a CPU with a name that is as long as any"
    )
    arm = "webdataset by webdataset from object-store.of-some-lab.example:7480, manifest 01234567"
    figure = lab.plot_throughput(
        ComparableArms(where, [ArmRates(arm, [1.0, 2.0]), ArmRates("remote_one_sample", [1.0])])
    )
    figure.canvas.draw()
    [axis] = figure.axes
    assert axis.get_position().width > 0.5
    [title] = [text for text in axis.findobj(Text) if text.get_text().startswith("Food-11")]
    assert title.get_window_extent().x1 < figure.bbox.x1


@pytest.mark.parametrize(
    ("requests", "images", "expected"),
    [
        pytest.param(44, 40, "1.10 requests per image, 70.0 KiB in each", id="one-by-one"),
        pytest.param(3, 2100, "700 images per request, 70.0 KiB in each", id="shards"),
        pytest.param(None, 40, "no requests were counted", id="not-counted"),
    ],
)
def test_requests_for_images(requests: int | None, images: int, expected: str) -> None:
    record = {"network_requests": requests, "network_bytes": (requests or 0) * 70 * 1024, "images": images}
    assert lab.describe_requests(record) == expected


@pytest.mark.parametrize(
    "line",
    ["3\n", '"three"\n', "[1]\n", '{"a":1}\n', '{"event": "error"}\n', "Traceback (most recent call last):\n", "\n"],
)
def test_a_library_s_own_words_are_no_event(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab._parse_event(line) is None
    lab._print_event(line)
    assert capsys.readouterr().out == ""
    failure = lab._explain_failure(1, ["begin\n", line])
    assert failure.what == f"bench ended with 1:\nbegin\n{line.rstrip()}"


def test_progress_is_reported_and_an_error_is_raised_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        json.dumps({"stage": "bench", "event": event, "message": message}) + "\n"
        for event, message in (
            ("progress", "measuring: 8 images"),
            ("error", "error: no bucket\n  next step: make one"),
            ("next", "again"),
        )
    ]
    for line in lines:
        lab._print_event(line)
    assert capsys.readouterr().out == "measuring: 8 images\n"
    failure = lab._explain_failure(2, [*lines, "3\n"])
    assert (type(failure), failure.what, failure.next_step) == (lab.StageError, "no bucket", "make one")


def test_a_wrong_setting_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_WORKERS", "abc")
    with pytest.raises(ConfigurationError, match=r"a fault:\n  - LARDER_WORKERS") as caught:
        lab.measure("imagefolder_local")
    assert "next step" not in caught.value.what


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for name, value in ({"S3_ENDPOINT_URL": endpoint, "S3_BUCKET": "food"} | keys).items():
            monkeypatch.setenv(name, value)
        yield endpoint


@pytest.mark.parametrize("cell", [lab.open_artifact, lab.measure], ids=lambda cell: str(cell.__name__))
def test_a_store_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, silent: str, cell: Callable[[str], object]
) -> None:
    assert lab.ANSWER_SECONDS <= 10
    monkeypatch.setattr(lab, "ANSWER_SECONDS", 0.2)
    with pytest.raises(ServiceError, match=f"at most 0.2 s for s3://food: .*{silent}") as caught:
        cell("webdataset")
    assert "`make s3-up`; then `make jupyter` again, which keeps the workspace" in caught.value.next_step


def test_without_a_bucket_the_next_step_ends_with_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S3_BUCKET", "RCLONE_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    for call in (lambda: lab.open_artifact("litdata_streaming"), lab.find_mounted_tree):
        with pytest.raises(ConfigurationError, match="S3_BUCKET is not set") as caught:
            call()
        assert "`make s3-up`; then `make jupyter` again, which keeps the workspace" in caught.value.next_step


def test_without_a_mount_the_next_step_ends_with_jupyter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S3_BUCKET", "food")
    monkeypatch.setenv("LARDER_MOUNT_DIR", str(tmp_path))
    with pytest.raises(InputError, match="nothing is mounted") as caught:
        lab.find_mounted_tree()
    assert "`make mount`" in caught.value.next_step
    assert caught.value.next_step.endswith("then `make jupyter` again, which keeps the workspace")


def test_the_first_files_of_the_split_that_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOOD11_SPLIT", "validation")
    for number, name in enumerate(("training/class_00/a", "validation/class_01/c", "validation/class_00/b")):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(number))
    (tmp_path / "validation" / "README").touch()
    files = [("validation/class_00/b.jpg", 2), ("validation/class_01/c.jpg", 1)]
    assert lab.list_files(tmp_path, 6) == files
    assert lab.list_files(tmp_path, 1) == files[:1]


def test_a_split_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOOD11_SPLIT", "holdout")
    with pytest.raises(InputError, match="holdout doesn't exist") as caught:
        lab.list_files(tmp_path, 6)
    assert "FOOD11_SPLIT" in caught.value.next_step
