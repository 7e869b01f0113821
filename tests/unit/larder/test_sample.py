"""The generated dataset: Food-11's counts, the same bytes everywhere, and pictures that a network can learn."""

import hashlib
import io
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from larder import sample
from larder.sample import SampleImage, picture

SEED = 0
PER_CLASS = 26
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pictures() -> list[tuple[SampleImage, bytes]]:
    """Render the same number of each class, so that classes weigh the same below."""
    places = [SampleImage("training", c, n) for n in range(PER_CLASS) for c in range(sample.CLASSES)]
    return [(place, picture.render(SEED, place)) for place in places]


def upright(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def test_the_full_size_has_the_published_counts() -> None:
    planned = list(sample.plan_images(16_643))
    counts = Counter((image.split, image.label) for image in planned)
    assert sample.apportion(16_643) == sample.COUNTS
    assert [sum(row) for row in sample.COUNTS] == [9866, 3430, 3347]
    expected = {
        (split, label): count
        for split, row in zip(sample.SPLITS, sample.COUNTS, strict=True)
        for label, count in enumerate(row)
    }
    assert counts == expected
    assert len({image.path for image in planned}) == 16_643


@pytest.mark.parametrize("images", [33, 34, 100, 999, 2_000, 16_642, 16_644, 50_000])
def test_any_other_size_is_shared_out_without_loss(images: int) -> None:
    cells = [count for row in sample.apportion(images) for count in row]
    assert sum(cells) == images
    assert min(cells) >= 1
    if images >= 2_000:  # below that, filling empty cells may take more than a rounding from the largest
        published = [count for row in sample.COUNTS for count in row]
        assert all(abs(got - images * count / 16_643) < 1 for got, count in zip(cells, published, strict=True))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="ask for 33"):
        next(sample.plan_images(32))


def test_names_count_from_zero_within_class_and_split() -> None:
    assert next(sample.plan_images(100)).path == "training/0_0.jpg"
    assert SampleImage("validation", 3, 17).path == "validation/3_17.jpg"
    numbers = [i.number for i in sample.plan_images(500) if (i.split, i.label) == ("evaluation", 2)]
    assert numbers == list(range(len(numbers)))


def test_the_same_bytes_in_any_order_and_process() -> None:
    places = [SampleImage("training", 6, 5), SampleImage("evaluation", 8, 0)]
    forward = [picture.render(SEED, place) for place in places]
    picture.render(SEED + 1, places[0])  # evicts the cached textures
    assert [picture.render(SEED, place) for place in reversed(places)] == forward[::-1]
    program = (
        "import sys; from larder import sample; from larder.sample import picture; "
        f"sys.stdout.buffer.write(picture.render({SEED}, sample.SampleImage('evaluation', 8, 0)))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert elsewhere.stdout == forward[1]


def test_seed_split_class_and_number_each_change_the_picture() -> None:
    place = SampleImage("training", 0, 0)
    similar = [SampleImage("validation", 0, 0), SampleImage("training", 1, 0), SampleImage("training", 0, 1)]
    files = [picture.render(SEED, place), picture.render(SEED + 1, place)]
    files += [picture.render(SEED, other) for other in similar]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize(
    ("image", "sha256"),
    [
        (SampleImage("training", 3, 17), "07943a9f59cfd6a11db8034819650acfdd3ab42215d868b60d85b367fb52432a"),
        (
            SampleImage("evaluation", 10, 2),
            "cd9b17b2387d177718f79e020e26997b8925036844cc9b7d90ddf6f143bb2407",
        ),
    ],
    ids=lambda value: value.path if isinstance(value, SampleImage) else "",
)
def test_golden_bytes(image: SampleImage, sha256: str) -> None:
    digest = hashlib.sha256(picture.render(SEED, image)).hexdigest()
    assert digest == sha256, (
        f"{image.path} has changed: by an edit (then bump GENERATOR_VERSION and renew these digests) "
        "or by another numpy or Pillow than the pinned ones"
    )


def test_sizes_are_those_of_photographs(pictures: list[tuple[SampleImage, bytes]]) -> None:
    lengths = np.array([len(data) for _, data in pictures])
    sizes = [Image.open(io.BytesIO(data)).size for _, data in pictures]
    low, high = picture.SHORT_SIDE_PIXELS
    assert all(low <= min(size) <= high and max(size) <= picture.LONG_SIDE_PIXELS for size in sizes)
    assert len(set(sizes)) > len(sizes) // 2
    assert 60_000 <= lengths.mean() <= 80_000
    assert lengths.std() >= 20_000


def test_the_estimate_of_bytes_is_close(pictures: list[tuple[SampleImage, bytes]]) -> None:
    total = sum(len(data) for _, data in pictures)
    assert sample.expected_bytes(len(pictures)) == pytest.approx(total, rel=0.1)


def test_every_picture_decodes_to_what_its_traits_say(pictures: list[tuple[SampleImage, bytes]]) -> None:
    for place, data in pictures:
        look = picture.traits(SEED, place)
        stored = Image.open(io.BytesIO(data))
        stored.load()
        assert stored.format == "JPEG"
        assert stored.mode == ("L" if look.grayscale else "RGB")
        assert bool(stored.info.get("progressive")) == look.progressive
        assert stored.getexif().get(0x0112, 1) == look.orientation
        assert upright(data).size == (look.width, look.height)


def test_a_rotated_file_shows_the_picture_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    place = SampleImage("training", 9, 1)
    look = picture.traits(SEED, place)
    shown = []
    for orientation in (1, 3, 6, 8):
        turned = picture.Traits(look.width, look.height, 95, False, False, orientation, True)
        monkeypatch.setattr(picture, "traits", lambda *_, turned=turned: turned)
        shown.append(np.asarray(upright(picture.render(SEED, place)), np.int16))
    # A turned picture meets the grid of 8 x 8 blocks elsewhere, so it is close and not equal.
    assert all(np.abs(other - shown[0]).mean() < 4 for other in shown[1:])


def test_shares_of_the_kinds_are_the_stated_ones() -> None:
    looks = [picture.traits(SEED, image) for image in islice(sample.plan_images(16_643), 0, None, 4)]
    for stated, found in (
        (picture.PROGRESSIVE_PERCENT, [look.progressive for look in looks]),
        (picture.GRAYSCALE_PERCENT, [look.grayscale for look in looks]),
        (picture.ROTATED_PERCENT, [look.orientation != 1 for look in looks]),
        (picture.FULL_CHROMA_PERCENT, [look.full_chroma for look in looks]),
    ):
        spread = 4 * (stated * (100 - stated) / len(looks)) ** 0.5  # four standard deviations, in percent
        assert 100 * np.mean(found) == pytest.approx(stated, abs=spread)


def spectrum_slope(picture: Image.Image) -> float:
    """Fit log amplitude against log frequency of the luma, from 4 periods per side to half of Nyquist."""
    luma = np.asarray(picture.convert("L"), np.float64)
    side = min(luma.shape)
    window = np.hanning(side)
    square = (luma[:side, :side] - luma[:side, :side].mean()) * window[:, None] * window
    amplitude = np.abs(np.fft.fft2(square))
    frequency = np.abs(np.fft.fftfreq(side, 1 / side))
    ring = np.hypot(frequency[:, None], frequency).astype(np.int64).ravel()
    radial = np.bincount(ring, amplitude.ravel()) / np.bincount(ring)
    band = np.arange(4, side // 4)
    return float(np.polyfit(np.log(band), np.log(radial[band]), 1)[0])


def test_the_amplitude_spectrum_falls_as_in_natural_images(pictures: list[tuple[SampleImage, bytes]]) -> None:
    slopes = [spectrum_slope(upright(data)) for _, data in pictures[:66]]
    assert -1.3 < np.mean(slopes) < -0.8
    assert np.std(slopes) < 0.25


def nearest_centroid(features: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Learn centroids from the even rows of (n, d) features; return the accuracy on the odd rows."""
    train, trained = features[::2], labels[::2]
    centroids = np.stack([train[trained == c].mean(0) for c in range(sample.CLASSES)])
    distances = ((features[1::2, None] - centroids) ** 2).sum(2)
    return float((distances.argmin(1) == labels[1::2]).mean())


def texture_features(thumbnail: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Reduce a (64, 64, 3) picture to means, spreads and edge strengths of its middle, per channel."""
    middle = thumbnail[12:52, 12:52]
    edges = [np.abs(middle[step:] - middle[:-step]).mean((0, 1)) for step in (1, 2, 4)]
    edges += [np.abs(middle[:, step:] - middle[:, :-step]).mean((0, 1)) for step in (1, 2, 4)]
    return np.concatenate([middle.mean((0, 1)), middle.std((0, 1)), *edges])


def test_classes_can_be_learnt_and_not_from_colour_alone(pictures: list[tuple[SampleImage, bytes]]) -> None:
    chance = 1 / sample.CLASSES
    labels = np.array([place.label for place, _ in pictures])
    thumbnails = np.stack(
        [np.asarray(upright(d).convert("RGB").resize((64, 64), Image.Resampling.BOX)) for _, d in pictures]
    ).astype(np.float64)
    features = np.stack([texture_features(thumbnail) for thumbnail in thumbnails])
    features = (features - features.mean(0)) / features.std(0)
    assert nearest_centroid(features, labels) > 3 * chance
    assert 1.5 * chance < nearest_centroid(thumbnails.mean((1, 2)), labels) < 0.7
