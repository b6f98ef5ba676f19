"""Answers, line by line, how PyMySQL would connect by a URL of SQLAlchemy: JSON in, JSON out.

{"url": text} -> {"user", "password", "host", "port", "database", "socket", "bind", "tls"} | {"error": text}
where tls is null or {"ca", "cert", "key", "verify": "none" | "ca" | "host"}
"""
import json
import ssl
import sys

import pymysql.connections
from pymysql.optionfile import Parser
from sqlalchemy.engine.url import make_url

# As PyMySQL does from 1.1 on.
Parser.optionxform = lambda self, key: key.lower().replace('_', '-')
pymysql.connections.DEFAULT_USER = ''
# Nothing is connected to, and the system's authorities take a while to read.
ssl.SSLContext.load_default_certs = lambda self, purpose=None: None


class Recording(pymysql.connections.Connection):
    tls = None

    def _create_ssl_ctx(self, sslp):
        context = super()._create_ssl_ctx(sslp)
        checked = 'none' if context.verify_mode == ssl.CERT_NONE else 'host' if context.check_hostname else 'ca'
        self.tls = {'ca': sslp.get('ca'), 'cert': sslp.get('cert'), 'key': sslp.get('key'), 'verify': checked}
        return context


def connect(url):
    parsed = make_url(url)
    of_url = parsed.get_dialect()
    arguments, named = of_url(dbapi=of_url.dbapi()).create_connect_args(parsed)
    try:
        one = Recording(*arguments, defer_connect=True, **named)
    except Exception as error:
        return {'error': repr(error)}
    return {'user': one.user, 'password': one.password.decode('latin1'), 'host': one.host, 'port': one.port,
            'database': one.db, 'socket': one.unix_socket, 'bind': one.bind_address, 'tls': one.tls}


for line in sys.stdin:
    print(json.dumps(connect(json.loads(line)['url'])), flush=True)
