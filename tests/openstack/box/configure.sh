# shellcheck shell=bash
# Writes the configuration of every service, for the address BOX_ADDRESS; boot.sh sources it.

# How a service logs in at Keystone, as the section that the argument names.
login() {
    cat <<X
[$1]
auth_url = http://$BOX_ADDRESS:5000
auth_type = password
project_name = service
project_domain_name = Default
user_domain_name = Default
username = svc
password = pw
region_name = RegionOne
X
}
tokens() { login keystone_authtoken; echo "www_authenticate_uri = http://$BOX_ADDRESS:5000"; echo "memcached_servers = 127.0.0.1:11211"; }

# What every service has; the rest comes from stdin.
common() {
    cat <<X
[DEFAULT]
log_dir = $BOX/log
state_path = $BOX/$1
transport_url = rabbit://guest:guest@127.0.0.1:5672/
auth_strategy = keystone
X
    cat
    printf '[database]\nconnection = %s\n[oslo_concurrency]\nlock_path = %s\n' "$(database "$1")" $BOX/lock
    tokens
}

cat >/etc/keystone/keystone.conf <<X
[DEFAULT]
log_dir = $BOX/log
[database]
connection = $(database keystone)
[token]
provider = fernet
# Every command logs in, and every request's token is looked at: neither need be as strong, or as slow, as in earnest.
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = dogpile.cache.memcached
memcache_servers = 127.0.0.1:11211
[fernet_tokens]
key_repository = $BOX/fernet-keys
[credential]
key_repository = $BOX/credential-keys
X

for name in account container object; do
    sed -E -e "s|^# *devices = .*|devices = $BOX/node|; s|^# *mount_check = .*|mount_check = false|" \
        -e 's|^#? *bind_ip = .*|bind_ip = 127.0.0.1|; s|^#? *workers = .*|workers = 1|' "/etc/swift/$name-server.conf" >"$name.conf"
done
{
    cat <<X
[DEFAULT]
bind_ip = 0.0.0.0
bind_port = 8080
workers = 1
[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging cache listing_formats bulk authtoken s3api s3token keystoneauth copy slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:11211
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
X
    printf '[filter:versioned_writes]\nuse = egg:swift#versioned_writes\nallow_versioned_writes = true\nallow_object_versioning = true\n'
    for name in catch_errors gatekeeper listing_formats bulk copy slo dlo symlink s3api; do
        printf '[filter:%s]\nuse = egg:swift#%s\n' $name $name
    done
    # Keystone tells a signature right from wrong only to services that log in.
    login filter:s3token
    printf 'use = egg:swift#s3token\nauth_uri = http://%s:5000/v3\n' "$BOX_ADDRESS"
    tokens | sed 's/^\[keystone_authtoken\]/[filter:authtoken]\npaste.filter_factory = keystonemiddleware.auth_token:filter_factory\ndelay_auth_decision = True/'
} >proxy.conf

printf '[glance_store]\nstores = file\ndefault_store = file\nfilesystem_store_datadir = %s\n[paste_deploy]\nflavor = keystone\n' \
    $BOX/images | common glance >/etc/glance/glance-api.conf

# Without the service role, detaching hangs.
{
    common cinder <<X
host = localhost
enabled_backends = fake
default_volume_type = ceph-ssd
glance_api_servers = http://$BOX_ADDRESS:9292
periodic_interval = 5
report_interval = 3
backend_stats_polling_interval = 5
[fake]
volume_driver = cinder_fake.Driver
volume_backend_name = fake
volume_group = cinder-volumes
target_helper = fake
X
    printf 'service_token_roles = service\nservice_token_roles_required = true\n'
} >/etc/cinder/cinder.conf

common manila >/etc/manila/manila.conf <<X
host = localhost
enabled_share_backends = fake
enabled_share_protocols = NFS
default_share_type = default
api_paste_config = /usr/share/manila-common/api-paste.ini
report_interval = 3
periodic_interval = 5
[fake]
share_driver = manila_fake.Driver
share_backend_name = fake
driver_handles_share_servers = false
X

# Its port mapper, its locks and its quotas are those of older versions.
cat >ganesha.conf <<X
NFS_CORE_PARAM { Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; }
NFSv4 { Minor_Versions = 1, 2; Graceless = true; }
%include $BOX/exports.conf
X
touch exports.conf

{ printf '[DEFAULT]\nlog_dir = %s\n[placement_database]\nconnection = %s\n[api]\nauth_strategy = keystone\n' \
    $BOX/log "$(database placement)"; tokens; } >/etc/placement/placement.conf

# FakeDriver has room for many servers; the sized ones run out at the third.
{
    common nova <<X
compute_driver = fake.FakeDriver
host = localhost
osapi_compute_workers = 1
my_ip = 127.0.0.1
vif_plugging_timeout = 0
vif_plugging_is_fatal = false
[api_database]
connection = $(database nova_api)
[scheduler]
workers = 1
[conductor]
workers = 1
[glance]
region_name = RegionOne
[filter_scheduler]
track_instance_changes = false
available_filters = nova.scheduler.filters.all_filters
available_filters = blazarnova.scheduler.filters.blazar_filter.BlazarFilter
enabled_filters = ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,BlazarFilter
X
    login placement; login neutron; login cinder; login service_user; echo "send_service_user_token = true"
} >/etc/nova/nova.conf
rm -f /etc/nova/nova-compute.conf
for host in localhost "${RESERVABLE[@]}"; do
    mkdir -p "providers/$host"
    printf '[DEFAULT]\nhost = %s\nlog_file = nova-compute-%s.log\n[compute]\nprovider_config_location = %s\n' \
        "$host" "$host" "$BOX/providers/$host" >"$host.conf"
done
# The node holds its own flavor, with one core, and none of virtual machines: else their leases would take it from tests.
sed -i '/^host = /a reserved_host_cpus = 999\ncpu_allocation_ratio = 1.0' gpu1.conf
# One GPU for virtual machines, which Nova and Blazar count like cores.
cat >providers/kvm1/gpu.yaml <<X
meta:
  schema_version: '1.0'
providers:
  - identification: {uuid: \$COMPUTE_NODE}
    inventories: {additional: [{CUSTOM_H100: {total: 1, reserved: 0, min_unit: 1, max_unit: 1, step_size: 1, allocation_ratio: 1.0}}]}
X

{
    common neutron <<X
core_plugin = ml2
service_plugins = router
api_workers = 1
rpc_workers = 0
# Each kept connection holds one of its hundred threads, and one process's tests make more than that.
wsgi_keep_alive = false
bind_host = 0.0.0.0
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
X
    login nova; login placement
} >/etc/neutron/neutron.conf
cat >/etc/neutron/plugins/ml2/ml2_conf.ini <<X
[ml2]
type_drivers = local,flat,vxlan
tenant_network_types = local
mechanism_drivers = bindall
extension_drivers = port_security
[ml2_type_flat]
flat_networks = *
X

cat >blazar.conf <<X
[DEFAULT]
host = $BOX_ADDRESS
port = 1234
log_dir = $BOX/log
transport_url = rabbit://guest:guest@127.0.0.1:5672/
os_auth_protocol = http
os_auth_host = $BOX_ADDRESS
os_auth_port = 5000
os_auth_version = v3
os_admin_username = svc
os_admin_password = pw
os_admin_project_name = service
os_admin_user_domain_name = Default
os_admin_project_domain_name = Default
os_region_name = RegionOne
identity_service = identity
[manager]
plugins = physical.host.plugin,flavor.instance.plugin,virtual.floatingip.plugin,network.plugin
event_max_retries = 1
minutes_before_end_lease = 0
# Chameleon's limit: seven days.
[enforcement]
enabled_filters = MaxLeaseDurationFilter
max_lease_duration = 604800
[nova]
aggregate_freepool_name = freepool
[database]
connection = $(database blazar)
[oslo_concurrency]
lock_path = $BOX/lock
X
tokens | grep -v memcached >>blazar.conf  # whose environment has no client for it
