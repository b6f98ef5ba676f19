"""One-machine Swift on loopback: memcached, account, container and object server, and the proxy.

Called by swift-server.ts with one JSON argument. Makes the rings and configurations under `directory`, starts everything,
prints one line `ready` once all answer, and stops everything when its standard input is closed or it gets SIGTERM.

Swift waits 0.5 s for a connection, 3 s for an answer and 1 s for the listing to know an object by default: a busy machine
takes longer, so they wait as long as a test may. Every storage server reads its [DEFAULT], the proxy the section of its app.
"""
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from swift.common import utils

PROXY = '''[DEFAULT]
bind_ip = 127.0.0.1
bind_port = %(proxy)d
workers = %(workers)d
user = root
swift_dir = %(directory)s
log_level = INFO
%(proxy_default)s
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk s3api %(auth)s copy container-quotas account-quotas slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
conn_timeout = 20
node_timeout = 60
%(proxy_app)s
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:%(memcached)d
connect_timeout = 20
io_timeout = 20
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
s3_acl = no
location = us-east-1
dns_compliant_bucket_names = yes
auth_pipeline_check = no
storage_domain = %(storage_domain)s
min_segment_size = 5242880
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = %(keystone)s
auth_url = %(keystone)s
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = swift
password = swift
delay_auth_decision = true
memcached_servers = 127.0.0.1:%(memcached)d
include_service_catalog = false
service_token_roles = service
service_token_roles_required = true
token_cache_time = %(token_cache)d
[filter:keystoneauth]
use = egg:swift#keystoneauth
reseller_prefix = AUTH
operator_roles = admin, member, swiftoperator
reseller_admin_role = ResellerAdmin
[filter:tempauth]
use = egg:swift#tempauth
reseller_prefix = TEMPAUTH
token_life = %(token_life)d
user_admin_admin = admin .admin .reseller_admin
user_test_tester = testing .admin
user_test2_tester2 = testing2 .admin
user_test_reader = reading
[filter:copy]
use = egg:swift#copy
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
'''

STORAGE = '''[DEFAULT]
bind_ip = 127.0.0.1
bind_port = %(port)d
workers = 0
user = root
swift_dir = %(directory)s
devices = %(directory)s/devices
mount_check = false
fallocate_reserve = 0
disk_chunk_size = 1048576
network_chunk_size = 262144
conn_timeout = 20
node_timeout = 60
container_update_timeout = 60
log_level = INFO
[pipeline:main]
pipeline = healthcheck %(kind)s-server
[app:%(kind)s-server]
use = egg:swift#%(kind)s
[filter:healthcheck]
use = egg:swift#healthcheck
'''

SWIFT = '''[swift-hash]
swift_hash_path_suffix = test
swift_hash_path_prefix = test
[swift-constraints]
%(constraints)s
[storage-policy:0]
name = gold
default = yes
[storage-policy:1]
name = silver
'''


def write(path, text):
    with open(path, 'w') as out:
        out.write(text)


def make_rings(directory, ports):
    from swift.common.ring import RingBuilder
    for name, kind in (('account', 'account'), ('container', 'container'),
                       ('object', 'object'), ('object-1', 'object')):
        builder = RingBuilder(6, 1, 0)
        builder.add_dev({'id': 0, 'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': ports[kind],
                         'replication_ip': '127.0.0.1', 'replication_port': ports[kind],
                         'device': 'd1', 'weight': 1.0, 'meta': ''})
        builder.rebalance()
        builder.get_ring().save(os.path.join(directory, name + '.ring.gz'))


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def serve(kind, conf_file, log_file):
    pid = os.fork()
    if pid:
        return pid
    die_with_parent()
    os.register_at_fork(after_in_child=die_with_parent)  # the proxy's workers
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open('/dev/null', os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from swift.common.wsgi import run_wsgi
    extra = {}
    if kind == 'object':
        from swift.obj import server
        extra['global_conf_callback'] = server.global_conf_callback
    try:
        code = run_wsgi(conf_file, kind + '-server', verbose=True, **extra)
    except SystemExit as stop:
        code = stop.code
    os._exit(code if isinstance(code, int) else 1)


def answers(port):
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    except OSError:
        return False


def main():
    wanted = json.loads(sys.argv[1])
    directory, ports = wanted['directory'], wanted['ports']
    os.makedirs(os.path.join(directory, 'devices', 'd1'))
    write(os.path.join(directory, 'swift.conf'), SWIFT % {'constraints': wanted['constraints']})
    utils.SWIFT_CONF_FILE = os.path.join(directory, 'swift.conf')
    make_rings(directory, ports)
    keystone = wanted['keystone']
    write(os.path.join(directory, 'proxy.conf'), PROXY % {
        'proxy': ports['proxy'], 'memcached': ports['memcached'], 'directory': directory,
        'workers': wanted['workers'], 'storage_domain': wanted['storageDomain'],
        'token_life': wanted['tokenLifeSeconds'], 'token_cache': wanted['tokenCacheSeconds'],
        'proxy_default': wanted['proxyDefault'], 'proxy_app': wanted['proxyApp'],
        'keystone': keystone or '',
        'auth': 'authtoken keystoneauth tempauth' if keystone else 'tempauth'})
    children = []
    for kind in ('account', 'container', 'object'):
        conf = os.path.join(directory, kind + '.conf')
        write(conf, STORAGE % {'port': ports[kind], 'directory': directory, 'kind': kind})
    memcached = subprocess.Popen(
        ['/usr/bin/memcached', '-l', '127.0.0.1', '-p', str(ports['memcached']), '-m', '32', '-u', 'root'],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent)
    children.append(memcached.pid)
    for kind in ('account', 'container', 'object', 'proxy'):
        children.append(serve(kind, os.path.join(directory, kind + '.conf'),
                              os.path.join(directory, kind + '.log')))

    def stop(*_):
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    until = time.time() + 60
    waiting = list(ports.values())
    while waiting and time.time() < until:
        waiting = [port for port in waiting if not answers(port)]
        time.sleep(0.05)
    print('late: ports %s' % waiting if waiting else 'ready', flush=True)
    sys.stdin.read()
    stop()


main()
