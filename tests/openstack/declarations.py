"""Declarations that the tests share, and what is in the cloud then."""

from __future__ import annotations

SERVER = '[server]\nkey = "laptop"\nsecurity_groups = ["default"]\n'
VOLUME = '[[volume]]\nname = "block"\ngib = 1\n'
NODE = SERVER + '[lease]\nhours = 1\nnode_type = "gpu_a100"\n'
SHARE = '[[share]]\nname = "photos"\ngib = 1\n'
BOOT = "[server.boot_volume]\ngib = 3\ndelete_on_termination = {}\n"
KEYS = '[bucket]\nname = "data"\n[credentials]\nrclone_config = "rclone.conf"\n'
WHOLE = """
[server]
key = "laptop"
[floating_ip]
[[security_group]]
name = "allow-ssh"
ports = [22]
[[volume]]
name = "block"
gib = 1
[bucket]
name = "data"
[credentials]
rclone_config = "rclone.conf"
"""
MADE = {"servers": 1, "volumes": 1, "addresses": 1, "groups": 1, "buckets": 1, "keys": 1}
KEPT = {"volumes": 1, "buckets": 1, "keys": 1}
