"""Answers, line by line, what oslo.config makes of configuration files: JSON in, JSON out.

{"files": [path...], "directory": path?, "options": [[group, name, type, arguments, aliases]...]}
-> {"values": {"group/name": {"value": ...} | {"error": text}}} | {"error": text}
{"transport": url} and {"database": url} -> what oslo.messaging and SQLAlchemy make of the URL
{"cinder": true} -> every option that Cinder, oslo.messaging, oslo.db, oslo.log and castellan register
"""
import json
import logging
import math
import sys
import warnings

warnings.simplefilter('ignore')
logging.disable(logging.CRITICAL)

from oslo_config import cfg  # noqa: E402

KINDS = {
    'string': cfg.StrOpt,
    'boolean': cfg.BoolOpt,
    'integer': cfg.IntOpt,
    'number': cfg.FloatOpt,
    'list': cfg.ListOpt,
    'multi': cfg.MultiStrOpt,
    'choice': cfg.StrOpt,
    'port': cfg.PortOpt,
    'uri': cfg.URIOpt,
}


def load(request):
    conf = cfg.ConfigOpts()
    for group, name, kind, arguments, aliases in request['options']:
        deprecated = [cfg.DeprecatedOpt(old, group=old_group) for old_group, old in aliases]
        conf.register_opt(KINDS[kind](name, deprecated_opts=deprecated, **arguments),
                          group=None if group == 'DEFAULT' else group)
    arguments = []
    for path in request['files']:
        arguments += ['--config-file', path]
    if 'directory' in request:
        arguments += ['--config-dir', request['directory']]
    try:
        conf(arguments, project='none', default_config_files=[], default_config_dirs=[])
    except Exception as error:
        return {'error': repr(error)}
    values = {}
    for group, name, *_ in request['options']:
        try:
            value = getattr(conf if group == 'DEFAULT' else getattr(conf, group), name)
            # Infinities have no JSON, and are refused by ours.
            endless = isinstance(value, float) and not math.isfinite(value)
            values[group + '/' + name] = {'error': repr(value)} if endless else {'value': value}
        except Exception as error:
            values[group + '/' + name] = {'error': repr(error)}
    return {'values': values}


def describe(option):
    default = option.default
    return {
        'kind': type(option).__name__,
        'default': default if isinstance(default, (str, int, float, list, type(None))) else str(default),
        'secret': bool(option.secret),
        'aliases': [[old.group, old.name] for old in option.deprecated_opts],
        'min': getattr(option.type, 'min', None),
        'max': getattr(option.type, 'max', None),
        'choices': list(option.type.choices) if getattr(option.type, 'choices', None) else None,
    }


def credentials():
    """What keystoneauth reads of a section with credentials, whichever of the plugins that are honoured its auth_type names."""
    from keystoneauth1 import loading
    plugins = [option for name in ('password', 'v3applicationcredential') for option in loading.get_auth_plugin_conf_options(name)]
    options = loading.get_auth_common_conf_options() + loading.get_session_conf_options() + plugins
    return [(section, options) for section in ('keystone_authtoken', 'service_user', 'barbican_service_user')]


def registered():
    import castellan.options
    import cinder.opts
    import keystonemiddleware.auth_token._opts
    import oslo_db.options
    import oslo_log._options
    import oslo_messaging.opts
    import oslo_service._options

    found = {}
    listed = (list(cinder.opts.list_opts()) + oslo_messaging.opts.list_opts() + oslo_log._options.list_opts()
              + castellan.options.list_opts() + [('database', oslo_db.options.database_opts)]
              + [('DEFAULT', oslo_service._options.service_opts)]
              + keystonemiddleware.auth_token._opts.list_opts() + credentials())
    for group, options in listed:
        name = group if isinstance(group, str) or group is None else group.name
        for option in options:
            found.setdefault(name or 'DEFAULT', {})[option.dest] = describe(option)
    return found


def parse_transport(url):
    from oslo_messaging.transport import TransportURL
    try:
        parsed = TransportURL.parse(cfg.ConfigOpts(), url)
    except Exception as error:
        return {'error': repr(error)}
    return {
        'hosts': [[host.hostname, host.port, host.username or '', host.password or ''] for host in parsed.hosts],
        'virtual_host': parsed.virtual_host or '',
        'query': parsed.query,
    }


def parse_database(url):
    from sqlalchemy.engine.url import make_url
    try:
        parsed = make_url(url)
    except Exception as error:
        return {'error': repr(error)}
    return {'host': parsed.host or '', 'port': parsed.port, 'user': parsed.username or '',
            'password': str(parsed.password or ''), 'database': parsed.database or ''}


def answer_to(request):
    if 'transport' in request:
        return parse_transport(request['transport'])
    if 'database' in request:
        return parse_database(request['database'])
    return registered() if request.get('cinder') else load(request)


for line in sys.stdin:
    answer = answer_to(json.loads(line))
    print(json.dumps(answer, default=str), flush=True)
