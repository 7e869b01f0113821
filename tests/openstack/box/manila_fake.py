"""A driver for Manila whose shares are folders, which NFS-Ganesha serves to those whom the access rules name."""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

from manila.share import driver

FOLDER = Path("/srv/os/shares")
RULES = Path("/srv/os/share-rules")
EXPORTS = Path("/srv/os/exports.conf")
PID = Path("/run/ganesha.pid")
SERVER = "203.0.113.253"
"""In the external network. Nobody is reached there, until a test connects this container to a network of that name."""
GIB = 10_000

EXPORT = """\
EXPORT {{
    Export_Id = {number}; Path = {path}; Pseudo = /shares/{id}; Protocols = 4; Transports = TCP; SecType = sys;
    Squash = no_root_squash; Access_Type = None; FSAL {{ Name = VFS; }}
    {clients}
}}
"""
CLIENT = "CLIENT {{ Clients = {to}; Access_Type = {level}; }}"


def publish():
    """Have Ganesha serve what there is: one file per share has its number and its rules."""
    text = ""
    for file in sorted(RULES.iterdir()):
        state = json.loads(file.read_text())
        clients = "\n    ".join(CLIENT.format(to=to, level=level.upper()) for to, level in state["rules"])
        text += EXPORT.format(number=state["number"], path=FOLDER / file.name, id=file.name, clients=clients)
    EXPORTS.write_text(text)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it starts after us
        os.kill(int(PID.read_text()), signal.SIGHUP)


class Driver(driver.ShareDriver):
    def __init__(self, *args, **kwargs):
        super().__init__(False, *args, **kwargs)

    def create_share(self, context, share, share_server=None):
        (FOLDER / share["id"]).mkdir()
        numbers = [json.loads(file.read_text())["number"] for file in RULES.iterdir()]
        self._write(share, max(numbers, default=0) + 1, [])
        return [{"path": f"{SERVER}:/shares/{share['id']}", "is_admin_only": False, "metadata": {}}]

    def delete_share(self, context, share, share_server=None):
        (RULES / share["id"]).unlink(missing_ok=True)
        publish()
        shutil.rmtree(FOLDER / share["id"], ignore_errors=True)

    def extend_share(self, share, new_size, share_server=None):
        pass

    def ensure_share(self, context, share, share_server=None):
        pass

    def update_access(self, context, share, access_rules, add_rules, delete_rules, share_server=None):
        number = json.loads((RULES / share["id"]).read_text())["number"]
        self._write(share, number, [(rule["access_to"], rule["access_level"]) for rule in access_rules])

    def _write(self, share, number, rules):
        (RULES / share["id"]).write_text(json.dumps({"number": number, "rules": rules}))
        publish()

    def _update_share_stats(self, data=None):
        super()._update_share_stats(
            {
                "share_backend_name": "fake",
                "storage_protocol": "NFS",
                "total_capacity_gb": GIB,
                "free_capacity_gb": GIB,
                "reserved_percentage": 0,
            }
        )
