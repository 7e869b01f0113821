"""The settings of the transform stage."""

from __future__ import annotations

from larder.settings import DataSettings, ProcessSettings
from larder.sources.settings import LabelColumnSettings
from larder.tree.settings import SampleSettings


class TransformSettings(LabelColumnSettings, DataSettings, ProcessSettings, SampleSettings):
    """Which files become samples, and how they are checked."""
