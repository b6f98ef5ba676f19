"""One-machine Ceph with a radosgw on loopback, all in memory: called by radosgw-server.ts with one JSON argument.

One monitor, one OSD (memstore), no cephx. Prints `ready` once S3 answers, and stops everything when its standard input is closed.
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
import uuid

CONF = '''[global]
fsid = %(fsid)s
mon initial members = a
mon host = [v2:127.0.0.1:%(mon)d]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv6 = false
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
run dir = %(directory)s
keyring = /dev/null
ms mon client mode = crc
log file = %(directory)s/$name.log
admin socket = %(directory)s/$name.asok
pid file =
[mon]
mon data = %(directory)s/mon
[osd]
osd data = %(directory)s/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd memory target = 939524096
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:%(rgw)d
rgw data = %(directory)s/rgw
rgw enable usage log = false
rgw thread pool size = 64
rgw crypt require ssl = false
rgw dns name = s3.test
rgw max concurrent requests = 256
'''


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main():
    wanted = json.loads(sys.argv[1])
    directory, ports = wanted['directory'], wanted['ports']
    conf = os.path.join(directory, 'ceph.conf')
    fsid = str(uuid.uuid4())
    with open(conf, 'w') as out:
        out.write(CONF % {'fsid': fsid, 'mon': ports['mon'], 'rgw': ports['rgw'], 'directory': directory})
    for name in ('mon', 'osd', 'rgw'):
        os.makedirs(os.path.join(directory, name))
    log = open(os.path.join(directory, 'setup.log'), 'ab')
    children = []

    def run(*command):
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, timeout=60)

    def start(*command):
        children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         preexec_fn=die_with_parent))

    def stop(*_):
        for child in children:
            child.kill()
            child.wait()
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    monmap = os.path.join(directory, 'monmap')
    run('monmaptool', '--create', '--addv', 'a', '[v2:127.0.0.1:%d]' % ports['mon'], '--fsid', fsid, monmap)
    run('ceph-mon', '-c', conf, '--mkfs', '-i', 'a', '--monmap', monmap)
    start('ceph-mon', '-f', '-c', conf, '-i', 'a')
    osd = str(uuid.uuid4())
    run('ceph', '-c', conf, 'osd', 'new', osd)
    run('ceph-osd', '-c', conf, '-i', '0', '--mkfs', '--osd-uuid', osd)
    start('ceph-osd', '-f', '-c', conf, '-i', '0')
    for name in ('tester', 'other'):
        run('radosgw-admin', '-c', conf, '-n', 'client.rgw', 'user', 'create', '--uid', name, '--display-name', name,
            '--access-key', name, '--secret', 'secret-of-' + name)
    start('radosgw', '-f', '-c', conf, '-n', 'client.rgw')
    until = time.time() + 60
    while time.time() < until:
        try:
            socket.create_connection(('127.0.0.1', ports['rgw']), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        print('late', flush=True)
        stop()
    print('ready', flush=True)
    sys.stdin.read()
    stop()


main()
