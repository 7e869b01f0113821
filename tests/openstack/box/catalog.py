"""Fills the box: first (`catalog`) users and endpoints, then (`contents`) what a site offers."""

import os
import sys
import time

import openstack

HOST = os.environ["BOX_ADDRESS"]
SERVICES = (
    ("object-store", "swift", "8080/v1/AUTH_%(project_id)s"),
    ("block-storage", "cinder", "8776/v3/%(project_id)s"),
    ("volumev3", "cinderv3", "8776/v3/%(project_id)s"),
    ("share", "manila", "8786/v1/%(project_id)s"),
    ("sharev2", "manilav2", "8786/v2"),
    ("image", "glance", "9292"),
    ("placement", "placement", "8778"),
    ("compute", "nova", "8774/v2.1"),
    ("network", "neutron", "9696"),
    ("reservation", "blazar", "1234/v1"),
)
GPU = "g1.h100.pci.1"
REGIONS = {"RegionOne": {kind for kind, _, _ in SERVICES}, "RegionTwo": {"image", "placement", "compute", "network"}}
"""What each region offers. The second has no volumes, shares, leases or objects, as bare-metal sites may have it."""


def catalog(cloud):
    identity = cloud.identity
    identity.create_region(id="RegionTwo")
    keystone = identity.find_service("keystone")
    for interface in ("public", "internal", "admin"):
        url = f"http://{HOST}:5000/v3/"
        identity.create_endpoint(service_id=keystone.id, interface=interface, url=url, region_id="RegionTwo")
    domain = identity.find_domain("Default").id
    project = identity.create_project(name="service", domain_id=domain)
    user = identity.create_user(name="svc", password="pw", domain_id=domain, default_project_id=project.id)
    # service: without it, Cinder takes no detaching from Nova
    for role in ("admin", "service"):
        found = identity.find_role(role) or identity.create_role(name=role)
        identity.assign_project_role_to_user(project, user, found)
    for kind, name, rest in SERVICES:
        service = identity.create_service(name=name, type=kind)
        for region in (name for name, kinds in REGIONS.items() if kind in kinds):
            for interface in ("public", "internal", "admin"):
                identity.create_endpoint(
                    service_id=service.id, interface=interface, url=f"http://{HOST}:{rest}", region_id=region
                )


def until(step, seconds=300):
    """Repeat what can't succeed before a service is up."""
    end = time.monotonic() + seconds
    while True:
        try:
            return step()
        except Exception as error:
            if time.monotonic() > end:
                raise
            print("waiting:", str(error)[:120], flush=True)
            time.sleep(0.5)


def contents(cloud):
    until(lambda: cloud.block_storage.create_type(name="ceph-ssd"))
    until(lambda: create_share_type(cloud, "default"))
    for name, ram, cpus in (("m1.medium", 4096, 2), ("m1.xlarge", 16384, 8), ("baremetal", 1024, 1), (GPU, 8192, 2)):
        until(lambda name=name, ram=ram, cpus=cpus: cloud.compute.create_flavor(name=name, ram=ram, vcpus=cpus, disk=1))
    cloud.compute.create_flavor_extra_specs(cloud.compute.find_flavor(GPU), {"resources:CUSTOM_H100": "1"})
    until(lambda: list(cloud.network.networks()))
    public = cloud.network.create_network(
        name="public", is_router_external=True, provider_network_type="flat", provider_physical_network="ext"
    )
    cloud.network.create_subnet(
        network_id=public.id,
        ip_version=4,
        cidr="203.0.113.0/24",
        is_dhcp_enabled=False,
        allocation_pools=[{"start": "203.0.113.2", "end": "203.0.113.199"}],  # the others are Blazar's
    )
    shared = cloud.network.create_network(name="sharednet1", is_shared=True)
    subnet = cloud.network.create_subnet(network_id=shared.id, ip_version=4, cidr="10.9.0.0/16")
    router = cloud.network.create_router(name="router", external_gateway_info={"network_id": public.id})
    cloud.network.add_interface_to_router(router, subnet_id=subnet.id)
    cloud.image.create_image(
        name="CC-Ubuntu24.04",
        data=bytes(1 << 20),
        disk_format="raw",
        container_format="bare",
        visibility="public",
        validate_checksum=False,
    )
    # Blazar needs this aggregate to register a host, and registers only a host without servers.
    until(lambda: cloud.compute.create_aggregate(name="freepool"))
    until(lambda: reserve(cloud, "os-hosts", {"name": "kvm1"}))
    until(lambda: reserve(cloud, "os-hosts", {"name": "gpu1", "node_type": "gpu_a100"}))
    for number in range(200, 208):
        address = {"floating_network_id": public.id, "floating_ip_address": f"203.0.113.{number}"}
        until(lambda address=address: reserve(cloud, "floatingips", address))


def create_share_type(cloud, name):
    """Create a type for shares of servers that the site's operators run, as Chameleon's."""
    body = {"name": name, "extra_specs": {"driver_handles_share_servers": "False"}}
    answer = cloud.shared_file_system.post("/types", json={"share_type": body}, microversion="2.45")
    if not answer.ok:
        raise RuntimeError(f"Manila: {answer.status_code} {answer.text[:200]}")


def reserve(cloud, kind, body):
    """Make something known to Blazar, so that it can be reserved."""
    answer = cloud.session.post(f"http://{HOST}:1234/v1/{kind}", json=body, raise_exc=False)
    if not answer.ok:
        raise RuntimeError(f"Blazar: {answer.status_code} {answer.text[:200]}")


{"catalog": catalog, "contents": contents}[sys.argv[1]](openstack.connect())
