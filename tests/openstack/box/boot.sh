#!/bin/bash
# Configures and starts one OpenStack on this container's address. It is ready when its log says so, after about 80 s.
set -e
BOX_ADDRESS=$(ip -4 -o addr show scope global | awk '{sub("/.*", "", $4); print $4; exit}')
export BOX_ADDRESS
export OS_AUTH_URL=http://$BOX_ADDRESS:5000/v3 OS_USERNAME=admin OS_PASSWORD=pw OS_PROJECT_NAME=admin \
    OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default OS_REGION_NAME=RegionOne
BOX=/srv/os
mkdir -p $BOX/{log,lock,images,cinder,neutron,nova/instances}
cd $BOX

say() { echo "[${SECONDS}s] $*"; }
database() { echo "mysql+pymysql://root@localhost/$1?unix_socket=/run/mysqld/mysqld.sock"; }

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

# Plain HTTP: clients of another kind of uwsgi's sockets fail at keep-alive. One thread: with more, answers to Nova's
# calls over RabbitMQ arrive in one that sleeps, and attaching a volume times out.
web() {
    uwsgi --plugins python3 --master --die-on-term --enable-threads --threads 1 --processes 3 --lazy-apps \
        --buffer-size 65535 --http-socket "0.0.0.0:$2" --wsgi-file "$3" --add-header "Connection: close" \
        --logto "$BOX/log/$1.log" &
}
background() { setsid "$@" >"$BOX/log/$(basename "$1").out" 2>&1 & }
until_true() {
    for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.3; done
    say "gave up waiting for: $*"; exit 1
}

# MariaDB, since SQLite's locks end in errors 500; nothing needs to survive here, so nothing is flushed.
mkdir -p /run/mysqld && chown mysql: /run/mysqld
background mariadbd --user=mysql --bind-address=127.0.0.1 --socket=/run/mysqld/mysqld.sock \
    --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --skip-log-bin --innodb-flush-method=nosync \
    --innodb-buffer-pool-size=256M --max-connections=500
memcached -u nobody -l 127.0.0.1 -d
(cd / && HOME=/var/lib/rabbitmq RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1" \
    background /usr/sbin/rabbitmq-server)
until_true mariadb -e 'select 1'
for name in keystone glance cinder placement nova nova_api nova_cell0 neutron blazar; do
    mariadb -e "create database $name character set utf8mb3"
done
say "MariaDB"

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
mkdir -m 700 fernet-keys credential-keys
keystone-manage db_sync
keystone-manage fernet_setup --keystone-user root --keystone-group root
keystone-manage credential_setup --keystone-user root --keystone-group root
# All three addresses: services ask for internal and admin ones.
keystone-manage bootstrap --bootstrap-password pw --bootstrap-region-id RegionOne \
    --bootstrap-public-url "http://$BOX_ADDRESS:5000/v3/" --bootstrap-internal-url "http://$BOX_ADDRESS:5000/v3/" \
    --bootstrap-admin-url "http://$BOX_ADDRESS:5000/v3/"
web keystone 5000 /usr/bin/keystone-wsgi-public
until_true curl -sf "http://$BOX_ADDRESS:5000/v3"
python3 /box/catalog.py catalog
say "Keystone"

mkdir -p node/disk && chown -R swift: node
for ring in "account 6202" "container 6201" "object 6200"; do
    read -r name port <<<"$ring"
    (cd /etc/swift && swift-ring-builder "$name.builder" create 8 1 1 \
        && swift-ring-builder "$name.builder" add "r1z1-127.0.0.1:$port/disk" 1 \
        && { swift-ring-builder "$name.builder" rebalance || [ $? = 1 ]; }) >/dev/null  # 1: nothing to move
    sed -E -e "s|^# *devices = .*|devices = $BOX/node|; s|^# *mount_check = .*|mount_check = false|" \
        -e 's|^#? *bind_ip = .*|bind_ip = 127.0.0.1|; s|^#? *workers = .*|workers = 1|' "/etc/swift/$name-server.conf" >"$name.conf"
    background "swift-$name-server" "$BOX/$name.conf"
done
{
    cat <<X
[DEFAULT]
bind_ip = 0.0.0.0
bind_port = 8080
workers = 1
[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging cache listing_formats bulk authtoken s3api s3token keystoneauth copy slo dlo proxy-logging proxy-server
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
    for name in catch_errors gatekeeper listing_formats bulk copy slo dlo s3api; do
        printf '[filter:%s]\nuse = egg:swift#%s\n' $name $name
    done
    # Keystone tells a signature right from wrong only to services that log in.
    login filter:s3token
    printf 'use = egg:swift#s3token\nauth_uri = http://%s:5000/v3\n' "$BOX_ADDRESS"
    tokens | sed 's/^\[keystone_authtoken\]/[filter:authtoken]\npaste.filter_factory = keystonemiddleware.auth_token:filter_factory\ndelay_auth_decision = True/'
} >proxy.conf
background swift-proxy-server $BOX/proxy.conf

printf '[glance_store]\nstores = file\ndefault_store = file\nfilesystem_store_datadir = %s\n[paste_deploy]\nflavor = keystone\n' \
    $BOX/images | common glance >/etc/glance/glance-api.conf
glance-manage db_sync >/dev/null 2>&1
web glance 9292 /usr/bin/glance-wsgi-api

# Without the service role, detaching hangs.
{
    common cinder <<X
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
cinder-manage db sync >/dev/null 2>&1
web cinder 8776 /usr/bin/cinder-wsgi
say "Glance, Cinder"

{ printf '[DEFAULT]\nlog_dir = %s\n[placement_database]\nconnection = %s\n[api]\nauth_strategy = keystone\n' \
    $BOX/log "$(database placement)"; tokens; } >/etc/placement/placement.conf
placement-manage db sync >/dev/null 2>&1
web placement 8778 /usr/bin/placement-api

# FakeDriver has room for many servers; the sized ones run out at the third.
{
    common nova <<X
compute_driver = fake.FakeDriver
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
X
    login placement; login neutron; login cinder; login service_user; echo "send_service_user_token = true"
} >/etc/nova/nova.conf
rm -f /etc/nova/nova-compute.conf
nova-manage api_db sync >/dev/null 2>&1
nova-manage cell_v2 map_cell0 --database_connection "$(database nova_cell0)" >/dev/null 2>&1
nova-manage db sync >/dev/null 2>&1
nova-manage cell_v2 create_cell --name cell1 >/dev/null 2>&1
web nova 8774 /usr/bin/nova-api-wsgi
say "Nova"

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
NEUTRON=(--config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini)
neutron-db-manage "${NEUTRON[@]}" upgrade heads >log/neutron-db.log 2>&1
background neutron-server "${NEUTRON[@]}"
say "Neutron"

until_true bash -c 'echo >/dev/tcp/127.0.0.1/5672'
has_row() { mariadb -Ne "select count(*) from $1" | grep -q '[1-9]'; }
background cinder-volume
background nova-scheduler
background nova-conductor
background nova-compute
until_true has_row cinder.services
background cinder-scheduler  # after its volume service, or it knows of none for a minute

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
plugins = physical.host.plugin,flavor.instance.plugin
event_max_retries = 1
minutes_before_end_lease = 0
[nova]
aggregate_freepool_name = freepool
[database]
connection = $(database blazar)
[oslo_concurrency]
lock_path = $BOX/lock
X
tokens | grep -v memcached >>blazar.conf  # whose environment has no client for it
/opt/blazar/bin/blazar-db-manage --config-file blazar.conf upgrade head >log/blazar-db.log 2>&1
background /opt/blazar/bin/blazar-manager --config-file $BOX/blazar.conf
background /opt/blazar/bin/python /box/blazar_api.py --config-file $BOX/blazar.conf
until_true has_row nova.compute_nodes
nova-manage cell_v2 discover_hosts >/dev/null 2>&1
python3 /box/catalog.py contents
say "ready"
wait
