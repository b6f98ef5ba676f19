"""A Ceph cluster on loopback, in one directory: a monitor and an OSD. Used by radosgw_node.py and ceph_node.py, under /usr/bin/python3.

Everything ends with the process that started it, however that ends.
"""
import ctypes
import json
import os
import shutil
import signal
import subprocess
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
auth cluster required = %(auth)s
auth service required = %(auth)s
auth client required = %(auth)s
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = %(pgs)d
osd pool default pgp num = %(pgs)d
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
run dir = %(directory)s
keyring = %(keyring)s
ms mon client mode = crc
log file = %(directory)s/$name.log
admin socket = %(directory)s/$name.asok
pid file =
[client]
admin socket =
log file =
[mon]
mon data = %(directory)s/mon
mon data avail warn = 2
mon data avail crit = 1
paxos propose interval = 0.02
paxos min wait = 0.01
[osd]
osd data = %(directory)s/osd
osd memory target = 939524096
osd scrub min interval = 1000000
osd scrub max interval = 1000000
osd deep scrub interval = 1000000
%(objectstore)s
'''

MEMORY = '''osd objectstore = memstore
memstore device bytes = 4294967296
'''

FILE = '''osd objectstore = bluestore
bluestore block create = true
bluestore block size = %d
bluestore block db create = false
bluestore block wal create = false
bluestore cache size = 134217728
'''


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Cluster:
    """`cephx`: keys are made under `<directory>/<name>.keyring`. `file_bytes`: size of the OSD's file; none: it keeps all in memory."""

    def __init__(self, directory, mon_port, cephx=False, file_bytes=None, pgs=4, more=''):
        self.directory = directory
        self.cephx = cephx
        self.conf = os.path.join(directory, 'ceph.conf')
        self.fsid = str(uuid.uuid4())
        self.mon_port = mon_port
        self.commands = {}
        self.children = {}
        keyring = os.path.join(directory, '$cluster.$name.keyring') if cephx else '/dev/null'
        with open(self.conf, 'w') as out:
            out.write(CONF % {
                'fsid': self.fsid, 'mon': mon_port, 'directory': directory, 'pgs': pgs, 'keyring': keyring,
                'auth': 'cephx' if cephx else 'none',
                'objectstore': MEMORY if file_bytes is None else FILE % file_bytes} + more)
        for name in ('mon', 'osd'):
            os.makedirs(os.path.join(directory, name))
        self.log = open(os.path.join(directory, 'setup.log'), 'ab')
        signal.signal(signal.SIGTERM, lambda *_: self.stop())

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self, *command, given=None):
        return subprocess.run(command, input=given, stdin=subprocess.DEVNULL if given is None else None,
                              stdout=subprocess.PIPE, stderr=self.log, check=True, timeout=60).stdout

    def ceph(self, *arguments, given=None):
        return self.run('ceph', '-c', self.conf, *arguments, given=given)

    def start(self, name, *command):
        self.commands[name] = command
        self.children[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                               preexec_fn=die_with_parent)

    def kill(self, name):
        child = self.children.pop(name)
        child.kill()
        child.wait()

    def restart(self, name):
        self.start(name, *self.commands[name])

    def signal(self, name, number):
        self.children[name].send_signal(number)

    def stop(self, *_):
        for child in self.children.values():
            child.kill()
            child.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
        os._exit(0)

    def boot(self):
        """Makes and starts the monitor and the OSD."""
        monmap = self.path('monmap')
        keys = []
        if self.cephx:
            admin, mon = self.path('ceph.client.admin.keyring'), self.path('ceph.mon.keyring')
            everything = ['--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *', '--cap', 'mgr', 'allow *']
            self.run('ceph-authtool', '--create-keyring', mon, '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *')
            self.run('ceph-authtool', '--create-keyring', admin, '--gen-key', '-n', 'client.admin', *everything)
            self.run('ceph-authtool', mon, '--import-keyring', admin)
            keys = ['--keyring', mon]
        self.run('monmaptool', '--create', '--addv', 'a', '[v2:127.0.0.1:%d]' % self.mon_port, '--fsid', self.fsid, monmap)
        self.run('ceph-mon', '-c', self.conf, '--mkfs', '-i', 'a', '--monmap', monmap, *keys)
        self.start('mon', 'ceph-mon', '-f', '-c', self.conf, '-i', 'a', *keys)
        osd = str(uuid.uuid4())
        if self.cephx:
            secret = self.run('ceph-authtool', '--gen-print-key').decode().strip()
            self.ceph('osd', 'new', osd, '-i', '-', given=('{"cephx_secret": "%s"}' % secret).encode())
            self.run('ceph-authtool', '--create-keyring', self.path('osd/keyring'), '--name', 'osd.0', '--add-key', secret)
            keys = ['--keyring', self.path('osd/keyring')]
        else:
            self.ceph('osd', 'new', osd)
        self.run('ceph-osd', '-c', self.conf, '-i', '0', '--mkfs', '--osd-uuid', osd, *keys)
        self.start('osd', 'ceph-osd', '-f', '-c', self.conf, '-i', '0', *keys)

    def osd_epoch(self):
        """The epoch in which the OSD came up last; 0: it has not yet. One that was killed alone stays "up": nobody reports it."""
        found = json.loads(self.ceph('osd', 'dump', '--format', 'json'))['osds'][0]
        return found['up_from'] if found['up'] else 0

    def await_osd(self, after=0):
        """Waits until the OSD has come up in a later epoch."""
        until = time.time() + 60
        while self.osd_epoch() <= after:
            if time.time() > until:
                raise TimeoutError('the OSD does not come up')
            time.sleep(0.2)
