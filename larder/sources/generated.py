"""The generated sample as a source."""

from __future__ import annotations

from collections.abc import Iterator

from larder import sample
from larder.sources.members import Member


class GeneratedSource:
    """Photo-like pictures made from a seed: see larder.sample."""

    name = sample.NAME
    parallel = True
    counted = False
    verb = "generate"

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.seed = images, seed
        self.total: int | None = images

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`. The size of a picture is known once it is made: -1 until then."""
        return (Member(image.path, -1, image) for image in sample.plan(self.images))

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        from larder.sample import picture  # here, since numpy takes a while to load

        yield picture.render(self.seed, member.place)
