"""A Ceph cluster for RBD volumes: called by ceph-cluster.ts with one JSON argument.

Cephx is on; `users` get a keyring each that is good for `pools`. Prints `ready` with the fsid, then takes lines `kill osd`, `start osd`,
`pause mon`, `resume mon` and the like, and answers each with `done`. Ends when its standard input is closed.
"""
import json
import signal
import sys

from ceph_cluster import Cluster


def main():
    wanted = json.loads(sys.argv[1])
    cluster = Cluster(wanted['directory'], wanted['port'], cephx=True, file_bytes=wanted['file_bytes'], pgs=8)
    try:
        cluster.boot()
        cluster.await_osd()
        for pool in wanted['pools']:
            cluster.ceph('osd', 'pool', 'create', pool, '8', '8')
            cluster.ceph('osd', 'pool', 'application', 'enable', pool, 'rbd')
        allowed = ', '.join('profile rbd pool=' + pool for pool in wanted['pools'])
        for user in wanted['users']:
            cluster.ceph('auth', 'get-or-create', 'client.' + user, 'mon', 'profile rbd', 'osd', allowed,
                         '-o', cluster.path('ceph.client.%s.keyring' % user))
    except Exception as error:
        print('failed: %r' % (error,), flush=True)
        cluster.stop()
    print('ready', cluster.fsid, flush=True)
    for line in sys.stdin:
        verb, name = line.split()
        if verb == 'kill':
            cluster.kill(name)
        elif verb == 'start':
            before = cluster.osd_epoch() if name == 'osd' else None
            cluster.restart(name)
            if before is not None:
                cluster.await_osd(before)
        else:
            cluster.signal(name, {'pause': signal.SIGSTOP, 'resume': signal.SIGCONT}[verb])
        print('done', flush=True)
    cluster.stop()


main()
