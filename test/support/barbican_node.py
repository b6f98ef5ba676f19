"""Debian's Barbican on loopback over SQLite with its simple crypto plugin: called by barbican-server.ts with one JSON argument.

Tokens are checked at a Keystone. Prints `ready`, and serves until its standard input is closed.
"""
import json
import os
import shutil
import socketserver
import sys
import threading
import wsgiref.simple_server

CONF = '''[DEFAULT]
sql_connection = sqlite:///%(directory)s/barbican.sqlite
db_auto_create = true
host_href = %(url)s
use_stderr = true
[keystone_authtoken]
auth_type = password
auth_url = %(keystone)s/v3
www_authenticate_uri = %(keystone)s/v3
username = cinder
password = cinder
project_name = service
user_domain_id = default
project_domain_id = default
service_token_roles = service
service_token_roles_required = true
[oslo_policy]
enforce_new_defaults = true
enforce_scope = true
policy_dirs = %(directory)s/policy.d
'''


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass


def main():
    wanted = json.loads(sys.argv[1])
    directory = wanted['directory']
    log = os.open(os.path.join(directory, 'barbican.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.makedirs(os.path.join(directory, 'policy.d'))
    with open(os.path.join(directory, 'barbican.conf'), 'w') as out:
        out.write(CONF % wanted)
    # Where Barbican's many configuration objects look for barbican.conf.
    os.environ['HOME'] = directory
    sys.argv = ['barbican']
    from barbican.api import app as api
    from barbican.api.middleware import context
    from barbican.common import config
    from keystonemiddleware import auth_token
    inner = context.ContextMiddleware(api.create_main_app({}))

    def versioned(environ, start_response):
        """What paste's urlmap does: the application stands below /v1."""
        path = environ.get('PATH_INFO', '')
        if path.startswith('/v1'):
            environ['SCRIPT_NAME'], environ['PATH_INFO'] = '/v1', path[3:]
        return inner(environ, start_response)

    app = auth_token.AuthProtocol(versioned, {'oslo_config_config': config.CONF})
    server = wsgiref.simple_server.make_server('127.0.0.1', wanted['port'], app, Server, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print('ready', flush=True)
    sys.stdin.read()
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


main()
