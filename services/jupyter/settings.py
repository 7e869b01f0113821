"""The settings of the jupyter stage."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from pydantic import Field

from larder.settings import Settings


class JupyterSettings(Settings):
    """JupyterLab's address, its token, and the folder of the work."""

    task: Literal["serve", "ready", "url", "up", "down", "logs"] = Field(
        "serve",
        alias="LARDER_JUPYTER_TASK",
        description="serve (run it here), ready (report whether it answers), url (print its address with the token); "
        "up, down and logs are for a server in the background, without a container engine",
    )
    workspace: Path = Field(
        Path("workspace"),
        alias="LARDER_WORKSPACE",
        description="the folder of notebooks and other files, which outlives the container",
    )
    bind: IPv4Address = Field(
        IPv4Address("127.0.0.1"),
        alias="LARDER_JUPYTER_BIND",
        description="the address that JupyterLab listens on; on any address but loopback, others can reach the login",
    )
    port: int = Field(
        8888, alias="LARDER_JUPYTER_PORT", ge=1, le=65535, description="the port that JupyterLab listens on"
    )
    token_file: Path = Field(
        Path(".larder/jupyter-token"),
        alias="LARDER_JUPYTER_TOKEN_FILE",
        description="the file with the token, which is the password",
    )
    home: Path = Field(
        Path(".larder/jupyter"),
        alias="LARDER_JUPYTER_DIR",
        description="folder in which a server in the background keeps its log and process id",
    )
