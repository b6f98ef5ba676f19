"""Writes and compares RBD images for the end-to-end tests: one JSON request per line, one answer each. Argument: ceph.conf.

Content is a list of [offset, length, generation], later ones over earlier ones, with zeros elsewhere. Every 8 bytes tell their own
offset and generation; generation 0 is zeros.
"""
import array
import json
import sys

import rados
import rbd

PIECE = 8 << 20


def pattern(offset, length, generation):
    if generation == 0:
        return bytes(length)
    first = (generation << 40) + offset // 8
    return array.array('Q', range(first, first + length // 8)).tobytes()


def write(image, content):
    for offset, length, generation in content:
        if generation == 0:
            image.discard(offset, length)
            continue
        for at in range(offset, offset + length, PIECE):
            size = min(PIECE, offset + length - at)
            image.write(pattern(at, size, generation), at)
    image.flush()


def compare(image, content):
    """The offset of the first 8 bytes that differ; None if all is as it should be."""
    size = image.size()
    for at in range(0, size, PIECE):
        length = min(PIECE, size - at)
        expected = bytearray(length)
        for offset, extent, generation in content:
            begin, end = max(at, offset), min(at + length, offset + extent)
            if begin < end:
                expected[begin - at:end - at] = pattern(begin, end - begin, generation)
        found = image.read(at, length)
        if found != expected:
            return at + next(i for i in range(0, length, 8) if found[i:i + 8] != expected[i:i + 8])
    return None


def main():
    cluster = rados.Rados(conffile=sys.argv[1], name='client.cinder')
    # librbd 16.2 sometimes aborts when an image is closed while its cache writes back.
    cluster.conf_set('rbd_cache', 'false')
    cluster.connect()
    pool = cluster.open_ioctx('volumes')
    for line in sys.stdin:
        request = json.loads(line)
        verb = request['verb']
        if verb == 'list':
            answer = rbd.RBD().list(pool)
        else:
            with rbd.Image(pool, request['image'], read_only=verb != 'write') as image:
                if verb == 'write':
                    answer = write(image, request['content'])
                elif verb == 'compare':
                    answer = compare(image, request['content'])
                elif verb == 'size':
                    answer = image.size()
                elif verb == 'snapshots':
                    answer = [each['name'] for each in image.list_snaps()]
        print(json.dumps(answer), flush=True)


main()
