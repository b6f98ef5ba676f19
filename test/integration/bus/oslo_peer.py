"""Real oslo.messaging, as Cinder's API, scheduler and volume service use it. One JSON line in, one out.

argv: JSON {"url": ..., "options": {name: value} of [oslo_messaging_rabbit], "cinder": whether its objects are needed}. Operations: see the functions below.
"""
import json
import logging
import sys
import threading
import time
import traceback
import warnings

warnings.simplefilter('ignore')
logging.disable(logging.CRITICAL)

import oslo_messaging as messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

settings = json.loads(sys.argv[1])
conf = cfg.CONF
if settings.get('cinder'):
    # Registers options of the command line: not possible once it has been read.
    from cinder import objects
    objects.register_all()
conf([], project='peer', default_config_files=[], default_config_dirs=[])
transport = None
clients = {}
calls = {}
received = []
notified = []
keep = []

CONTEXT = {
    'user_id': 'c5bb3d40a11249fd8e43a30834d289fc', 'project_id': 'b879f831e52c450dafd959b27d64fdee',
    'is_admin': False, 'request_id': 'req-7f1a1b0e-0000-4000-8000-000000000001', 'read_deleted': 'no',
    'roles': ['member'], 'auth_token': 'a-secret-token', 'global_request_id': None,
}


class Serializer(messaging.Serializer):
    """Cinder's, without what needs a request context of its own."""

    def __init__(self, base):
        self.base = base

    def serialize_entity(self, context, entity):
        return self.base.serialize_entity(context, entity) if self.base else entity

    def deserialize_entity(self, context, entity):
        return self.base.deserialize_entity(context, entity) if self.base else entity

    def serialize_context(self, context):
        return dict(context)

    def deserialize_context(self, context):
        return context


def get_transport():
    global transport
    if transport is None:
        # The driver registers its options when it is loaded; overrides go in afterwards.
        from oslo_messaging._drivers import amqp, impl_rabbit
        group = cfg.OptGroup(name='oslo_messaging_rabbit')
        conf.register_group(group)
        conf.register_opts(impl_rabbit.rabbit_opts, group=group)
        conf.register_opts(amqp.amqp_opts, group=group)
        for name, value in settings.get('options', {}).items():
            conf.set_override(name, value, group='oslo_messaging_rabbit')
        transport = messaging.get_rpc_transport(conf, url=settings['url'],
                                                allowed_remote_exmods=['cinder.exception'])
    return transport


def client_for(request):
    base = None
    if request.get('backup'):
        from cinder.objects import base as objects_base
        base = objects_base.CinderObjectSerializer()
    target = messaging.Target(topic=request['topic'], version='2.0')
    client = messaging.RPCClient(get_transport(), target, serializer=Serializer(base))
    prepared = {'version': request.get('version', '2.0')}
    for key in ('server', 'timeout', 'call_monitor_timeout', 'fanout', 'namespace'):
        if request.get(key) is not None:
            prepared[key] = request[key]
    return client.prepare(**prepared)


def args_of(request):
    args = dict(request.get('args', {}))
    if request.get('backup'):
        backup = make_backup(request['backup'])
        version = request.get('backup_version')
        args['backup'] = backup.obj_to_primitive(version) if version else backup
    return args


def make_backup(values):
    """A real Backup, as cinder-api has it after reading its row."""
    import datetime
    from cinder import context
    times = {key: datetime.datetime.fromisoformat(value) for key, value in values.items()
             if key in ('created_at', 'data_timestamp', 'updated_at') and value}
    backup = objects.Backup(context.RequestContext('u', 'p', is_admin=False), **{**values, **times})
    backup.obj_reset_changes()
    return backup


def describe(error):
    return {'class': type(error).__name__, 'module': type(error).__module__, 'text': str(error),
            'bases': [base.__name__ for base in type(error).__mro__],
            'kwargs': getattr(error, 'kwargs', None), 'code': getattr(error, 'code', None),
            'msg': getattr(error, 'msg', None)}


def call(request):
    try:
        return {'result': client_for(request).call(CONTEXT, request['method'], **args_of(request))}
    except Exception as error:
        return {'error': describe(error)}


def cast(request):
    client_for(request).cast(CONTEXT, request['method'], **args_of(request))
    return {}


def start_call(request):
    def run():
        calls[request['id']] = call(request)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    keep.append(thread)
    return {}


def wait_call(request):
    deadline = time.monotonic() + request.get('seconds', 60)
    while request['id'] not in calls and time.monotonic() < deadline:
        time.sleep(0.02)
    return calls.get(request['id'], {'error': {'class': 'StillWaiting'}})


class Endpoint:
    def __init__(self, version):
        self.target = messaging.Target(version=version)

    def echo(self, ctxt, **kwargs):
        return {'kwargs': kwargs, 'request_id': ctxt.get('request_id'), 'token': ctxt.get('auth_token')}

    def note(self, ctxt, **kwargs):
        received.append({'kwargs': kwargs, 'request_id': ctxt.get('request_id')})

    def slow(self, ctxt, seconds):
        time.sleep(seconds)
        return 'slept'

    def fail(self, ctxt, reason):
        from cinder import exception
        raise exception.InvalidVolume(reason=reason)

    def explode(self, ctxt):
        raise ZeroDivisionError('no way')


def serve(request):
    target = messaging.Target(topic=request['topic'], server=request['server'], version=request['version'])
    server = messaging.get_rpc_server(get_transport(), target, [Endpoint(request['version'])], executor='threading',
                                      serializer=Serializer(None))
    server.start()
    keep.append(server)
    return {}


def wait_received(request):
    deadline = time.monotonic() + request.get('seconds', 20)
    while len(received) < request['count'] and time.monotonic() < deadline:
        time.sleep(0.02)
    return {'received': received}


class NotificationEndpoint:
    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        notified.append({'context': ctxt, 'publisher_id': publisher_id, 'event_type': event_type, 'payload': payload,
                         'metadata': metadata})


def listen(request):
    get_transport()
    notification = messaging.get_notification_transport(conf, url=settings['url'])
    listener = messaging.get_notification_listener(notification, [messaging.Target(topic='notifications')],
                                                   [NotificationEndpoint()], executor='threading')
    listener.start()
    keep.append(listener)
    return {}


def wait_notified(request):
    deadline = time.monotonic() + request.get('seconds', 20)
    while len(notified) < request['count'] and time.monotonic() < deadline:
        time.sleep(0.02)
    return {'notified': notified}


operations = {one.__name__: one for one in (call, cast, start_call, wait_call, serve, wait_received, listen,
                                            wait_notified)}

for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = operations[request['op']](request)
    except Exception:
        answer = {'crash': traceback.format_exc()}
    print(json.dumps(answer, default=str), flush=True)

import os  # noqa: E402
os._exit(0)
