"""Cinder's real scheduler manager and its real client of cinder-backup, over a real broker; its tables are empty.

argv: JSON {"url": of the broker, "directory": for its SQLite}. One JSON line in, one out; operations: see the functions below.
"""
import json
import logging
import sys
import time
import traceback
import warnings

warnings.simplefilter('ignore')
logging.disable(logging.CRITICAL)

import eventlet  # noqa: E402
from eventlet import tpool  # noqa: E402
eventlet.monkey_patch()

from cinder import objects  # noqa: E402
objects.register_all()
from cinder import context  # noqa: E402
from cinder import exception  # noqa: E402
from cinder import rpc  # noqa: E402
from cinder.backup import rpcapi as backup_rpcapi  # noqa: E402
from cinder.common import config  # noqa: E402,F401
from cinder.db.sqlalchemy import api as db_api  # noqa: E402
from cinder.db.sqlalchemy import models  # noqa: E402
from cinder.objects import base as objects_base  # noqa: E402
from cinder.scheduler import manager as scheduler_manager  # noqa: E402
from oslo_config import cfg  # noqa: E402
import oslo_messaging as messaging  # noqa: E402
from oslo_messaging import transport  # noqa: E402

settings = json.loads(sys.argv[1])
conf = cfg.CONF
conf([], project='cinder', default_config_files=[], default_config_dirs=[])
conf.register_opts(transport._transport_opts)
conf.set_override('transport_url', settings['url'])
conf.set_override('connection', 'sqlite:///%s/cinder.sqlite' % settings['directory'], 'database')
rpc.init(conf)
models.BASE.metadata.create_all(db_api.get_engine(), tables=[models.Cluster.__table__, models.Service.__table__])
# What the services table says: see src/model/service-versions.ts. Zed's own interface ends at 2.3.
for binary, version in (('cinder-backup', '2.4'), ('cinder-volume', '3.18'), ('cinder-scheduler', '3.12')):
    rpc.LAST_RPC_VERSIONS[binary] = version
    rpc.LAST_OBJ_VERSIONS[binary] = '1.39'
scheduler = scheduler_manager.SchedulerManager()
admin = context.get_admin_context()
keep = []


def serve(request):
    target = messaging.Target(topic='cinder-scheduler', server='sched')
    server = rpc.get_server(target, [scheduler], objects_base.CinderObjectSerializer('1.39'))
    server.start()
    keep.append(server)
    return {}


def pick(request):
    """The host that the next backup would go to, once there is one; null after `seconds`, which begin when the scheduler
    knows the host `known`, if that is given."""
    hosts = scheduler.driver.host_manager
    if 'known' in request:
        await_known(hosts, request['known'])
    deadline = time.monotonic() + request.get('seconds', 20)
    while True:
        try:
            return {'host': hosts._get_available_backup_service_host(None, request.get('az'), request.get('driver'))}
        except Exception:
            if time.monotonic() >= deadline:
                return {'host': None, 'states': hosts.backup_service_states}
        eventlet.sleep(0.05)


def await_known(hosts, name):
    deadline = time.monotonic() + 20
    while name not in hosts.backup_service_states and time.monotonic() < deadline:
        eventlet.sleep(0.05)


def wait_gone(request):
    hosts = scheduler.driver.host_manager
    deadline = time.monotonic() + 20
    while hosts._list_backup_services(None) and time.monotonic() < deadline:
        eventlet.sleep(0.05)
    return {'left': hosts._list_backup_services(None)}


def forget(request):
    """As after a restart of the scheduler, which then asks."""
    scheduler.driver.host_manager.backup_service_states.clear()
    backup_rpcapi.BackupAPI().publish_service_capabilities(admin)
    return {}


def force_delete(request):
    return {'result': backup_rpcapi.BackupAPI().check_support_to_force_delete(admin, request['host'])}


def set_levels(request):
    asked = objects.LogLevel(admin, prefix=request['prefix'], level=request['level'])
    service = objects.Service(admin, host=request['host'])
    backup_rpcapi.BackupAPI().set_log_levels(admin, service, asked)
    return {}


def get_levels(request):
    asked = objects.LogLevel(admin, prefix=request['prefix'])
    asked.level = None
    service = objects.Service(admin, host=request['host'])
    found = backup_rpcapi.BackupAPI().get_log_levels(admin, service, asked)
    return {'levels': {each.prefix: each.level for each in found.objects}}


def export(request):
    backup = objects.Backup(admin, **request['backup'])
    backup.obj_reset_changes()
    try:
        record = backup_rpcapi.BackupAPI().export_record(admin, backup)
        return {'record': record, 'decoded': objects.Backup.decode_record(record['backup_url'])}
    except exception.InvalidBackup as error:
        return {'error': 'InvalidBackup', 'text': error.msg}


def import_record(request):
    backup = objects.BackupImport(admin, **request['backup'])
    backup.obj_reset_changes()
    backup_rpcapi.BackupAPI().import_record(admin, request['host'], backup, request['service'], request['url'],
                                            request['hosts'])
    return {}


while True:
    # In a thread of its own: the server's green threads go on meanwhile.
    line = tpool.execute(sys.stdin.readline)
    if not line:
        break
    request = json.loads(line)
    try:
        answer = globals()[request['op']](request)
    except Exception:
        answer = {'crash': traceback.format_exc()}
    print(json.dumps(answer, default=str), flush=True)

import os  # noqa: E402
os._exit(0)
