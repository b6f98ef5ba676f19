"""One-machine Ceph with a radosgw on loopback, all in memory: called by radosgw-server.ts with one JSON argument.

No cephx. Prints `ready` once S3 answers, and stops everything when its standard input is closed.
"""
import json
import os
import socket
import sys
import time

from ceph_cluster import Cluster

CLIENT = '''[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:%(rgw)d
rgw data = %(directory)s/rgw
rgw enable usage log = false
rgw thread pool size = 64
rgw crypt require ssl = false
rgw dns name = s3.test
rgw max concurrent requests = 256
log file = %(directory)s/$name.log
admin socket = %(directory)s/$name.asok
'''


def main():
    wanted = json.loads(sys.argv[1])
    directory, ports = wanted['directory'], wanted['ports']
    cluster = Cluster(directory, ports['mon'], more=CLIENT % {'rgw': ports['rgw'], 'directory': directory})
    os.makedirs(cluster.path('rgw'))
    cluster.boot()
    for name in ('tester', 'other'):
        cluster.run('radosgw-admin', '-c', cluster.conf, '-n', 'client.rgw', 'user', 'create', '--uid', name,
                    '--display-name', name, '--access-key', name, '--secret', 'secret-of-' + name)
    cluster.run('radosgw-admin', '-c', cluster.conf, '-n', 'client.rgw', 'subuser', 'create', '--uid', 'tester',
                '--subuser', 'tester:swift', '--access', 'full', '--key-type', 'swift', '--secret', 'testing')
    cluster.start('rgw', 'radosgw', '-f', '-c', cluster.conf, '-n', 'client.rgw')
    until = time.time() + 60
    while time.time() < until:
        try:
            socket.create_connection(('127.0.0.1', ports['rgw']), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        print('late', flush=True)
        cluster.stop()
    print('ready', flush=True)
    sys.stdin.read()
    cluster.stop()


main()
