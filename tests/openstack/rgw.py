"""Ceph's object gateway (RGW) as the object store of a region: users and S3 keys are Keystone's, as at Chameleon."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.openstack.services import docker, shared_service

RECIPE = Path(__file__).with_name("rgw")
IMAGE = "larder-test-rgw"


@dataclass(frozen=True)
class Gateway:
    """The running gateway, and the region whose catalog names it."""

    container: str
    address: str
    region: str

    def manage(self, *words: str) -> str:
        """Run a command of the store's operator, such as `quota set`."""
        return docker("exec", self.container, "radosgw-admin", *words)


@pytest.fixture(scope="session")
def gateway(box: str, admin: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Ceph's gateway, one for all processes of a test run; each of them has a region of its own for it."""
    with shared_service(tmp_path_factory, IMAGE, RECIPE, "--env", f"KEYSTONE=http://{box}:5000") as service:
        address = f"http://{service['address']}:8000"
        with new_region(box, admin, f"{address}/swift/v1/AUTH_%(project_id)s") as region:
            yield Gateway(service["name"], address, region)


@contextmanager
def new_region(box: str, admin: Any, object_store: str) -> Iterator[str]:
    """Create a region with an object store, and nothing else but Keystone. Yield its name; remove it afterwards."""
    name, identity = f"rgw-{uuid.uuid4().hex[:8]}", admin.identity
    identity.create_region(id=name)
    urls = {"keystone": f"http://{box}:5000/v3/", "swift": object_store}
    made = [
        identity.create_endpoint(
            service_id=identity.find_service(service).id, interface="public", url=url, region_id=name
        )
        for service, url in urls.items()
    ]
    try:
        yield name
    finally:
        for endpoint in made:
            identity.delete_endpoint(endpoint)
        identity.delete_region(name)
