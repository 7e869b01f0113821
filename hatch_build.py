"""Compile larder's JPEG kernel into the wheel, where there is a C compiler and libjpeg-turbo; hatchling runs this."""

from __future__ import annotations

import runpy
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("larder", "stream")


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds the library to the wheel, and the platform to its name. Without a compiler, the wheel is pure."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it, unless this is an editable installation, which uses the checkout's."""
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="larder-kernel-")
        script = runpy.run_path(str(Path(self.root) / FOLDER / "build.py"))
        try:
            library: Path = script["build"](Path(self._folder.name))
        except (script["BuildError"], OSError) as error:
            self.app.display_warning(f"The wheel is without the JPEG kernel, which can't be compiled: {error}")
            return
        build_data["force_include"][str(library)] = str(FOLDER / library.name)
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"  # ctypes loads it, so it serves every Python

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete what was compiled."""
        if version != "editable":
            self._folder.cleanup()
