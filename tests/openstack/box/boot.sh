#!/bin/bash
# One OpenStack on this container's address, which is ready when its log says so.
#   boot.sh install   at docker build: make the databases, start everything once, and fill it as a site is filled
#   boot.sh           start what was installed
set -e
BOX_ADDRESS=127.0.0.1
[ "$1" = install ] || BOX_ADDRESS=$(ip -4 -o addr show scope global | awk '{sub("/.*", "", $4); print $4; exit}')
export BOX_ADDRESS
export OS_AUTH_URL=http://$BOX_ADDRESS:5000/v3 OS_USERNAME=admin OS_PASSWORD=pw OS_PROJECT_NAME=admin \
    OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default OS_REGION_NAME=RegionOne
BOX=/srv/os
RESERVABLE=(kvm1 gpu1) # hosts of Blazar, which take servers on leases alone; localhost takes all others
NEUTRON=(--config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini)
mkdir -p $BOX/{log,lock,images,cinder,manila,neutron,nova/instances,node/disk,shares,share-rules}
cd $BOX

say() { echo "[${SECONDS}s] $*"; }
database() { echo "mysql+pymysql://root@localhost/$1?unix_socket=/run/mysqld/mysqld.sock"; }
background() { setsid "$@" >"$BOX/log/$(basename "$1").out" 2>&1 & }
until_true() {
    for _ in $(seq 400); do "$@" >/dev/null 2>&1 && return; sleep 0.3; done
    say "gave up waiting for: $*"; exit 1
}
answers() { until_true curl -so /dev/null "http://$BOX_ADDRESS:$1"; }

# Plain HTTP: clients of another kind of uwsgi's sockets fail at keep-alive. One thread: with more, answers to Nova's
# calls over RabbitMQ arrive in one that sleeps, and attaching a volume times out.
web() {
    uwsgi --plugins python3 --master --die-on-term --enable-threads --threads 1 --processes 3 \
        --buffer-size 65535 --http-socket "0.0.0.0:$2" --wsgi-file "$3" --add-header "Connection: close" \
        --logto "$BOX/log/$1.log" &
}

# MariaDB, since SQLite's locks end in errors 500; nothing needs to survive a crash, so nothing is flushed.
start_stores() {
    mkdir -p /run/mysqld && chown mysql: /run/mysqld
    background mariadbd --user=mysql --bind-address=127.0.0.1 --socket=/run/mysqld/mysqld.sock \
        --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --skip-log-bin --innodb-flush-method=nosync \
        --innodb-buffer-pool-size=256M --innodb-log-file-size=16M --max-connections=500
    memcached -u nobody -l 127.0.0.1 -d
    (cd / && HOME=/var/lib/rabbitmq RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1" \
        background /usr/sbin/rabbitmq-server)
    until_true mariadb -e 'select 1'
}

# Each of these is mostly Python that starts and imports; together they keep all cores busy.
make_databases() {
    local name pid pids=()
    for name in keystone glance cinder manila placement nova nova_api nova_cell0 neutron blazar; do
        mariadb -e "create database $name character set utf8mb3"
    done
    for name in keystone glance cinder manila placement nova neutron blazar; do
        "fill_$name" >"log/database-$name.log" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || { tail log/database-*.log; exit 1; }
    done
    say "databases"
}

fill_keystone() {
    mkdir -m 700 fernet-keys credential-keys
    keystone-manage db_sync
    keystone-manage fernet_setup --keystone-user root --keystone-group root
    keystone-manage credential_setup --keystone-user root --keystone-group root
    # All three addresses: services ask for internal and admin ones.
    keystone-manage bootstrap --bootstrap-password pw --bootstrap-region-id RegionOne \
        --bootstrap-public-url "http://$BOX_ADDRESS:5000/v3/" --bootstrap-internal-url "http://$BOX_ADDRESS:5000/v3/" \
        --bootstrap-admin-url "http://$BOX_ADDRESS:5000/v3/"
}
fill_glance() { glance-manage db_sync; }
fill_cinder() { cinder-manage db sync; }
fill_manila() { manila-manage db sync; }
fill_placement() { placement-manage db sync; }
fill_nova() {
    nova-manage api_db sync
    nova-manage cell_v2 map_cell0 --database_connection "$(database nova_cell0)"
    nova-manage db sync
    nova-manage cell_v2 create_cell --name cell1
}
fill_neutron() { neutron-db-manage "${NEUTRON[@]}" upgrade heads; }
fill_blazar() { /opt/blazar/bin/blazar-db-manage --config-file blazar.conf upgrade head; }

make_rings() {
    chown -R swift: node
    for ring in "account 6202" "container 6201" "object 6200"; do
        read -r name port <<<"$ring"
        (cd /etc/swift && swift-ring-builder "$name.builder" create 8 1 1 \
            && swift-ring-builder "$name.builder" add "r1z1-127.0.0.1:$port/disk" 1 \
            && { swift-ring-builder "$name.builder" rebalance || [ $? = 1 ]; }) >/dev/null  # 1: nothing to move
    done
}

# What was installed had another address, and services that were up.
move_here() {
    mariadb -e "update keystone.endpoint set url = replace(url, '//127.0.0.1:', '//$BOX_ADDRESS:');
        delete from cinder.services; delete from manila.services; update nova.services set last_seen_up = null"
}

start_services() {
    web keystone 5000 /usr/bin/keystone-wsgi-public
    for name in account container object; do background "swift-$name-server" "$BOX/$name.conf"; done
    background swift-proxy-server $BOX/proxy.conf
    answers 5000
    [ "$1" != install ] || python3 /box/catalog.py catalog
    background ganesha.nfsd -F -f $BOX/ganesha.conf -p /run/ganesha.pid -L $BOX/log/ganesha.log
    say "Keystone"
    web glance 9292 /usr/bin/glance-wsgi-api
    web cinder 8776 /usr/bin/cinder-wsgi
    web manila 8786 /usr/bin/manila-wsgi
    web placement 8778 /usr/bin/placement-api
    web nova 8774 /usr/bin/nova-api-wsgi
    background neutron-server "${NEUTRON[@]}"
    until_true bash -c 'echo >/dev/tcp/127.0.0.1/5672'
    background cinder-volume
    background manila-share
    background nova-conductor
    background nova-scheduler
    answers 8778
    for host in localhost "${RESERVABLE[@]}"; do
        background nova-compute --config-file /etc/nova/nova.conf --config-file "$BOX/$host.conf"
    done
    answers 8774
    background /opt/blazar/bin/blazar-manager --config-file $BOX/blazar.conf
    background /opt/blazar/bin/python /box/blazar_api.py --config-file $BOX/blazar.conf
    python3 /box/listening.py cinder-volume.localhost@fake
    background cinder-scheduler  # after its volume service, or it knows of none for a minute
    python3 /box/listening.py manila-share.localhost@fake
    background manila-scheduler
    for port in 8080 9292 8776 8786 9696 1234; do answers $port; done
    python3 /box/listening.py cinder-scheduler manila-scheduler conductor scheduler compute.localhost \
        "${RESERVABLE[@]/#/compute.}" blazar.manager
    say "all services"
}

# What lies in the image are databases and files; the rest is made again at each start.
leave_installed() {
    mariadb-admin shutdown
    pkill -KILL -f 'uwsgi|rabbit' || true
    rm -rf log/* lock/* /var/lib/rabbitmq/mnesia
}

. /box/configure.sh
start_stores
say "MariaDB"
if [ "$1" = install ]; then
    make_databases
    make_rings
    start_services install
    until_true bash -c "mariadb -Ne 'select count(*) from nova.compute_nodes' | grep -qx $((1 + ${#RESERVABLE[@]}))"
    nova-manage cell_v2 discover_hosts >log/discover.log 2>&1
    python3 /box/catalog.py contents
    leave_installed
else
    move_here
    start_services
    say "ready"
    wait
fi
