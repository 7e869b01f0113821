"""Provide the generated sample dataset as a source."""

from __future__ import annotations

from collections.abc import Iterator

from larder import sample
from larder.sources.members import Member


class GeneratedSource:
    """Photo-like images generated from a seed; see `larder.sample`."""

    name = sample.NAME
    parallel = True
    sizes_known = False
    action = "generate"

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.seed = images, seed
        self.total: int | None = images

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`. Sizes are -1, since an image's size is known only after it is generated."""
        return (Member(image.path, -1, image) for image in sample.plan_images(self.images))

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        from larder.sample import picture  # imported here because numpy takes long to import

        yield picture.render(self.seed, member.location)
