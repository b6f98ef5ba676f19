"""Cinder's own RBD driver (python3-cinder) on a test cluster, without the rest of Cinder. Called with the path of a cinder.conf whose section
[ceph] is the back end; one JSON request a line: {"do": method, "volume": id, "snapshot": id?, "name_id": id?}.
"""
import json
import sys

import eventlet

eventlet.monkey_patch(thread=False)

from oslo_config import cfg  # noqa: E402

from cinder import context  # noqa: E402
from cinder import objects  # noqa: E402
from cinder.volume import configuration  # noqa: E402
from cinder.volume import driver as base  # noqa: E402
from cinder.volume.drivers import rbd  # noqa: E402


def main():
    cfg.CONF(['--config-file', sys.argv[1]], project='cinder')
    objects.register_all()
    options = configuration.Configuration(base.volume_opts, config_group='ceph')
    driver = rbd.RBDDriver(configuration=options, host='node1@ceph')
    driver.do_setup(None)
    driver.check_for_setup_error()
    admin = context.get_admin_context()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            volume = objects.Volume(admin, id=request['volume'], _name_id=request.get('name_id'), size=1)
            volume.obj_reset_changes()
            if request['do'].endswith('_snapshot'):
                thing = objects.Snapshot(admin, id=request['snapshot'], volume_id=volume.id, volume=volume)
            else:
                thing = volume
            getattr(driver, request['do'])(thing)
            answer = {'name': thing.name}
        except Exception as error:
            answer = {'error': '%s: %s' % (type(error).__name__, error)}
        print(json.dumps(answer), flush=True)


main()
