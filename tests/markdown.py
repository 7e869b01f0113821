"""Read the repository's pages as GitHub shows them: their code blocks, links and anchors."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_SHOWN = 60
"""Characters of a command in a block's name."""
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced code block of a page."""

    page: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """Page and first command, without the comment at its end; long ones are cut."""
        first = next((line for line in self.commands if not line.startswith("export ")), self.commands[0])
        return f"{self.page}: {first[:_SHOWN]}"

    @property
    def commands(self) -> list[str]:
        """The lines, without comments."""
        return [line.split("  #")[0].strip() for line in self.text.splitlines() if line.strip()]


def pages() -> list[str]:
    """Return the paths of all Markdown files of the repository."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, text=True)
    return sorted(path for path in listed.splitlines() if (ROOT / path).exists())


def blocks(page: str, language: str = "") -> list[Block]:
    """Return the code blocks of a page, in their order; of one language, if it is named."""
    found = (Block(page, match[2], dedent(match[3])) for match in _FENCE.finditer((ROOT / page).read_text()))
    return [block for block in found if language in ("", block.language)]


def without_code(text: str) -> str:
    """Return a page's text without code, which may hold brackets and number signs."""
    return re.sub(r"``.+?``|`[^`\n]+`", "", re.sub(_FENCE, "", text))


def links(text: str) -> list[str]:
    """Return the targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", without_code(text))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", re.sub(_FENCE, "", text), re.MULTILINE)
    seen: Counter[str] = Counter()
    found = set()
    for heading in headings:
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found
