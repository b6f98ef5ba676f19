"""What others do to RBD images while they are backed up, with Debian's python3-rbd: guests that keep their images open and write, and Cinder.

Called with the path of a ceph.conf and a pool; one JSON request a line (see rbd-guest.ts). Written sectors begin with their own offset and
generation.
"""
import json
import struct
import sys

import rados
import rbd

SECTOR = 512


def sectors(offset, length, generation):
    out = bytearray()
    for at in range(offset, offset + length, SECTOR):
        head = struct.pack('<QQ', at, generation)
        out += (head * (SECTOR // len(head)))[:min(SECTOR, offset + length - at)]
    return bytes(out)


class Guest:
    def __init__(self, conf, pool):
        self.cluster = rados.Rados(rados_id='admin', conffile=conf)
        self.cluster.conf_set('rbd_cache', 'false')
        self.cluster.conf_set('rbd_skip_partial_discard', 'false')
        self.cluster.connect()
        self.pool = self.cluster.open_ioctx(pool)
        self.images = {}

    def image(self, name):
        if name not in self.images:
            self.images[name] = rbd.Image(self.pool, name)
        return self.images[name]

    def write(self, name, offset, length, generation):
        for at in range(offset, offset + length, 4 << 20):
            size = min(4 << 20, offset + length - at)
            self.image(name).write(sectors(at, size, generation), at)

    def discard(self, name, offset, length):
        self.image(name).discard(offset, length)

    def zero(self, name, offset, length):
        self.image(name).write_zeroes(offset, length)

    def resize(self, name, size):
        self.image(name).resize(size)

    def snapshot(self, name, snapshot, protect=False):
        self.image(name).create_snap(snapshot)
        if protect:
            self.image(name).protect_snap(snapshot)

    def rollback(self, name, snapshot):
        self.image(name).rollback_to_snap(snapshot)

    def clone(self, parent, snapshot, name, features, order=20):
        rbd.RBD().clone(self.pool, parent, snapshot, self.pool, name, features=features, order=order)

    def flatten(self, name):
        self.image(name).flatten()

    def rename(self, name, to):
        self.leave(name)
        rbd.RBD().rename(self.pool, name, to)

    def remove(self, name):
        self.leave(name)
        rbd.RBD().remove(self.pool, name)

    def watchers(self, name):
        return len(list(self.image(name).watchers_list()))

    def leave(self, name):
        if name in self.images:
            self.images.pop(name).close()


def main():
    guest = Guest(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {'result': getattr(guest, request.pop('do'))(**request)}
        except Exception as error:
            answer = {'error': '%s: %s' % (type(error).__name__, error)}
        print(json.dumps(answer), flush=True)


main()
