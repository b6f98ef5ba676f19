"""Cinder's own BackupMetadataAPI over its own tables in SQLite. One JSON line in, one out.

argv: JSON {"directory": for the SQLite}. Operations: `get` gives the text for a volume, `put` what texts make of one.
"""
import json
import logging
import sys
import traceback
import warnings

warnings.simplefilter('ignore')
logging.disable(logging.CRITICAL)

from cinder import objects  # noqa: E402
objects.register_all()
from cinder import context  # noqa: E402
from cinder import db  # noqa: E402
from cinder import exception  # noqa: E402
from cinder.backup import driver  # noqa: E402
from cinder.common import config  # noqa: E402,F401
from cinder.db.sqlalchemy import api as db_api  # noqa: E402
from cinder.db.sqlalchemy import models  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_utils import timeutils  # noqa: E402
from sqlalchemy import orm  # noqa: E402

settings = json.loads(sys.argv[1])
conf = cfg.CONF
conf([], project='cinder', default_config_files=[], default_config_dirs=[])
conf.set_override('connection', 'sqlite:///%s/cinder.sqlite' % settings['directory'], 'database')
# Volumes of older releases have no type.
models.Volume.__table__.c.volume_type_id.nullable = True
# SQLite cannot number the rows of workers as the model has it.
models.BASE.metadata.create_all(db_api.get_engine(), tables=[
    table for table in models.BASE.metadata.sorted_tables if table.name != 'workers'])
admin = context.get_admin_context()
TIMES = ('created_at', 'updated_at', 'deleted_at', 'scheduled_at', 'launched_at', 'terminated_at')


def make(request):
    values = {key: timeutils.parse_isotime(value).replace(tzinfo=None) if key in TIMES and value else value
              for key, value in request['volume'].items()}
    with orm.Session(db_api.get_engine()) as session, session.begin():
        for volume_type in request['types']:
            if session.get(models.VolumeType, volume_type) is None:
                session.add(models.VolumeType(id=volume_type, name=volume_type, deleted=False))
        session.add(models.Volume(**values))
    if request.get('metadata'):
        db.volume_metadata_update(admin, values['id'], request['metadata'], True)
    for key, value in request.get('glance', {}).items():
        db.volume_glance_metadata_create(admin, values['id'], key, value)
    return values['id']


def get(request):
    conf.set_override('backup_metadata_version', request['version'])
    return {'text': driver.BackupMetadataAPI(admin).get(make(request))}


def put(request):
    volume_id = make(request)
    for text in request['texts']:
        try:
            driver.BackupMetadataAPI(admin).put(volume_id, text)
        except exception.BackupMetadataUnsupportedVersion:
            return {'refused': 'version'}
        except exception.EncryptedBackupOperationFailed as error:
            return {'refused': error.msg}
    volume = db.volume_get(admin, volume_id)
    try:
        glance = {row.key: row.value for row in db.volume_glance_metadata_get(admin, volume_id)}
    except exception.GlanceMetadataNotFound:
        glance = {}
    return {'name': volume.display_name, 'description': volume.display_description, 'key': volume.encryption_key_id,
            'type': volume.volume_type_id, 'bootable': bool(volume.bootable),
            'metadata': db.volume_metadata_get(admin, volume_id), 'glance': glance}


for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = globals()[asked['op']](asked)
    except Exception:
        answer = {'crash': traceback.format_exc()}
    print(json.dumps(answer, default=str), flush=True)
