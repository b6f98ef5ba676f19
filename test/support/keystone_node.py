"""Debian's Keystone on loopback over SQLite: called by keystone-server.ts with one JSON argument.

Makes the tables from the models (as Keystone's own tests do), bootstraps, adds the projects, users, roles and endpoints of the
tests, prints `ready`, and serves until its standard input is closed.
"""
import io
import json
import os
import shutil
import socketserver
import sys
import threading
import wsgiref.simple_server

CONF = '''[DEFAULT]
log_dir =
use_stderr = true
[database]
connection = sqlite:///%(directory)s/keystone.sqlite
[token]
provider = fernet
expiration = %(expiration)d
allow_expired_window = 172800
[fernet_tokens]
key_repository = %(directory)s/fernet
[credential]
key_repository = %(directory)s/credential
[fernet_receipts]
key_repository = %(directory)s/fernet
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = dogpile.cache.memory
[oslo_policy]
policy_dirs = %(directory)s/policy.d
'''


def make_tables(conf_file):
    from keystone.server.flask import core as flask_core
    app = flask_core.initialize_application(name='public', config_files=[conf_file])
    from keystone.common import sql
    with sql.session_for_write() as session:
        sql.ModelBase.metadata.create_all(bind=session.connection())
    return app


def make_keys(directory):
    from cryptography import fernet
    for name in ('fernet', 'credential'):
        os.makedirs(os.path.join(directory, name), 0o700)
        for index in ('0', '1'):
            with open(os.path.join(directory, name, index), 'w') as out:
                out.write(fernet.Fernet.generate_key().decode())


def bootstrap(url, swift_url, region, services):
    from keystone.cmd import bootstrap as maker
    from keystone.server import backends
    backends.load_backends = lambda: None  # the application has loaded them
    first = maker.Bootstrapper()
    first.admin_password, first.admin_username = 'admin', 'admin'
    first.project_name, first.admin_role_name = 'admin', 'admin'
    first.service_name, first.region_id = 'keystone', region
    first.public_url = first.internal_url = first.admin_url = url + '/v3'
    first.immutable_roles = False
    first.bootstrap()

    import uuid
    from keystone.common import provider_api
    apis = provider_api.ProviderAPIs
    roles = {r['name']: r['id'] for r in apis.role_api.list_roles()}
    for name in ('service', 'swiftoperator'):
        if name not in roles:
            roles[name] = uuid.uuid4().hex
            apis.role_api.create_role(roles[name], {'id': roles[name], 'name': name, 'domain_id': None,
                                                    'description': '', 'options': {}})
    projects, users = {}, {}
    for name in ('service', 'demo', 'backups'):
        projects[name] = uuid.uuid4().hex
        apis.resource_api.create_project(projects[name], {
            'id': projects[name], 'name': name, 'domain_id': 'default', 'enabled': True, 'is_domain': False,
            'parent_id': 'default', 'description': '', 'options': {}, 'tags': []})
    for user, project, wanted in (('cinder', 'service', ('admin', 'service')), ('swift', 'service', ('admin', 'service')),
                                  ('demo', 'demo', ('member', 'reader')), ('backup', 'backups', ('member',)),
                                  ('stranger', 'demo', ('reader',))):
        made = apis.identity_api.create_user({'name': user, 'password': user, 'domain_id': 'default', 'enabled': True})
        users[user] = made['id']
        for role in wanted:
            apis.assignment_api.add_role_to_user_and_project(made['id'], projects[project], roles[role])
    catalog = [{'type': 'object-store', 'name': 'swift', 'url': swift_url + '/v1/AUTH_$(project_id)s'}] + services
    made = {}
    for each in catalog:
        if each['type'] not in made:
            made[each['type']] = uuid.uuid4().hex
            apis.catalog_api.create_service(made[each['type']], {
                'id': made[each['type']], 'type': each['type'], 'name': each['name'], 'enabled': True})
        for interface in ('public', 'internal', 'admin'):
            endpoint = uuid.uuid4().hex
            apis.catalog_api.create_endpoint(endpoint, {
                'id': endpoint, 'interface': interface, 'region_id': region,
                'service_id': made[each['type']], 'enabled': True, 'url': each['url']})
    return {'projects': projects, 'users': users}


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass


def main():
    wanted = json.loads(sys.argv[1])
    directory = wanted['directory']
    log = os.open(os.path.join(directory, 'keystone.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.makedirs(os.path.join(directory, 'policy.d'))
    conf_file = os.path.join(directory, 'keystone.conf')
    with open(conf_file, 'w') as out:
        out.write(CONF % {'directory': directory, 'expiration': wanted['tokenLifeSeconds']})
    make_keys(directory)
    sys.argv = ['keystone']
    app = make_tables(conf_file)
    made = bootstrap(wanted['url'], wanted['swiftUrl'], wanted['region'], wanted.get('services', []))
    server = wsgiref.simple_server.make_server('127.0.0.1', wanted['port'], app, Server, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps(made), flush=True)
    sys.stdin.read()
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


main()
