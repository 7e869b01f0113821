"""Download lists of samples that lie beside images, when a recipe reads one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from larder.errors import ConfigurationError, InputError
from larder.next_step import CREATED_BY
from larder.progress import format_amount
from larder.sources.prefix_reader import PrefixReader, S3Object
from larder.tree.recipes import RecipeFiles
from larder.tree.splits import parse_split_names
from services.index.listing import ObjectListing
from services.index.settings import IndexSettings

_MAX_LIST_BYTES = 1 << 30


class SampleLists:
    """Downloads lists of samples on demand."""

    def __init__(self, settings: IndexSettings, listing: ObjectListing, scratch: Path) -> None:
        self._settings, self._listing, self._scratch = settings, listing, scratch
        self._folder = scratch / "lists"

    def make_recipe_files(self, paths: Callable[[], Iterator[str]], holds: Callable[[str], bool]) -> RecipeFiles:
        """Return the files that recipes may read: `paths` yields their paths, `holds` tells whether a path exists."""
        settings = self._settings
        return RecipeFiles(
            self._folder,
            paths,
            lambda _: None,
            self._scratch,
            settings.csv,
            parse_split_names(settings.splits),
            settings.label_column,
            self.fetch,
            holds,
        )

    def has_object(self, path: str) -> bool:
        """Return whether an object exists at a path."""
        return self._listing.find(path) is not None

    def fetch(self, path: str) -> None:
        """Download a list once. Raises ConfigurationError if it is in an archive."""
        target, item = self._folder / path, self._listing.find(path)
        if item is None and self._listing.kinds.kind == "archives":
            raise _unreadable_list_error(path)
        if target.exists() or item is None:
            return
        if item.bytes > _MAX_LIST_BYTES:
            raise InputError(
                f"{item.uri} has {format_amount(item.bytes, 'B')}: lists of samples have at most "
                f"{format_amount(_MAX_LIST_BYTES, 'B')}",
                next_step="choose another recipe with LARDER_RECIPE, or leave the table out of the source",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.part")
        with partial.open("wb") as file:
            for chunk in PrefixReader(f"s3://{item.bucket}/", self._settings, 0).read(S3Object(*item[:4])):
                file.write(chunk)
        partial.rename(target)

    def read(self, path: str) -> bytes:
        """Return the content of a list."""
        self.fetch(path)
        return (self._folder / path).read_bytes()


def _unreadable_list_error(path: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path!r} may be a list of samples, and it lies in an archive, where lists aren't read",
        next_step=f"set LARDER_RECIPE=imagefolder if the folders are the classes; or run {CREATED_BY['tree']} with "
        "this LARDER_SOURCE",
    )
