"""A driver for Manila whose shares are folders, which nobody serves: their exports and access rules are records."""

import os
import shutil

from manila.share import driver

FOLDER = "/srv/os/shares"
GIB = 10_000


class Driver(driver.ShareDriver):
    def __init__(self, *args, **kwargs):
        super().__init__(False, *args, **kwargs)

    def create_share(self, context, share, share_server=None):
        os.makedirs(f"{FOLDER}/{share['id']}")
        return [{"path": f"{os.environ['BOX_ADDRESS']}:/shares/{share['id']}", "is_admin_only": False, "metadata": {}}]

    def delete_share(self, context, share, share_server=None):
        shutil.rmtree(f"{FOLDER}/{share['id']}", ignore_errors=True)

    def extend_share(self, share, new_size, share_server=None):
        pass

    def ensure_share(self, context, share, share_server=None):
        pass

    def update_access(self, context, share, access_rules, add_rules, delete_rules, share_server=None):
        pass

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
