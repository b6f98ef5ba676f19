"""Castellan over Barbican, as Cinder's services use it. One JSON line in, one out.

argv: JSON {"endpoint": Barbican's URL or null, "auth_url": Keystone's}. Operations: see the functions below. Each request has `token`,
`project` and `catalog`: those of Cinder's request context.
"""
import json
import logging
import sys
import warnings

warnings.simplefilter('ignore')
logging.disable(logging.CRITICAL)

from castellan import key_manager  # noqa: E402
from castellan import options  # noqa: E402
from castellan.common import exception  # noqa: E402
from castellan.common.objects import passphrase  # noqa: E402
from castellan.common.objects import symmetric_key  # noqa: E402
from cinder import context as cinder_context  # noqa: E402
from cinder.volume import volume_utils  # noqa: E402
from oslo_config import cfg  # noqa: E402

settings = json.loads(sys.argv[1])
conf = cfg.CONF
conf([], project='peer', default_config_files=[], default_config_dirs=[])
options.set_defaults(conf, backend='barbican', barbican_endpoint=settings['endpoint'],
                     barbican_api_version='v1', auth_endpoint=settings['auth_url'])


def context_of(request):
    return cinder_context.RequestContext('user', request['project'], is_admin=False, auth_token=request['token'],
                                         service_catalog=request['catalog'])


def describe(key):
    return {'type': type(key).__name__, 'bytes': key.get_encoded().hex(), 'name': key.name,
            'algorithm': getattr(key, 'algorithm', None), 'bits': getattr(key, 'bit_length', None)}


def store(request):
    data = bytes.fromhex(request['bytes'])
    if request.get('passphrase'):
        key = passphrase.Passphrase(data, request.get('name'))
    else:
        key = symmetric_key.SymmetricKey('aes', len(data) * 8, data, request.get('name'))
    return {'id': key_manager.API(conf).store(context_of(request), key)}


def get(request):
    try:
        return {'key': describe(key_manager.API(conf).get(context_of(request), request['id']))}
    except exception.ManagedObjectNotFoundError:
        return {'key': None}


def clone(request):
    return {'id': volume_utils.clone_encryption_key(context_of(request), key_manager.API(conf), request['id'])}


def delete(request):
    key_manager.API(conf).delete(context_of(request), request['id'])
    return {}


for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = globals()[asked['op']](asked)
    except Exception as error:
        answer = {'error': '%s: %s' % (type(error).__name__, error)}
    print(json.dumps(answer), flush=True)
