/**
 * The database URL as SQLAlchemy reads it: `dialect+driver://user:password@host:port/name?option=value`
 * (sqlalchemy/engine/url.py). MySQL and MariaDB, PostgreSQL, and SQLite are supported; Python's driver name does not matter.
 */
import { BackupError } from '../model/errors.ts';
import { percentDecode } from './percent-decoding.ts';

export type DatabaseUrl =
  | {
      readonly dialect: 'mysql' | 'postgresql';
      readonly host: string;
      readonly port: number;
      readonly user: string;
      readonly password: string;
      readonly database: string;
      /** `unix_socket` (MySQL), or the directory of PostgreSQL's socket. */
      readonly socketPath: string | undefined;
      readonly tls: DatabaseTls | undefined;
      readonly charset: string | undefined;
    }
  | { readonly dialect: 'sqlite'; readonly path: string };

export type DatabaseTls = {
  readonly caFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** `ca`: the certificate must be of the authority; `host`: and be that of the host. */
  readonly verify: 'none' | 'ca' | 'host';
};

const dialects = new Map([
  ['mysql', { dialect: 'mysql', port: 3306 } as const],
  ['mariadb', { dialect: 'mysql', port: 3306 } as const],
  ['postgresql', { dialect: 'postgresql', port: 5432 } as const],
  ['postgres', { dialect: 'postgresql', port: 5432 } as const],
]);

/** Parses `url`. Throws `config-invalid`; the message does not contain the URL, which holds a password. */
export function parseDatabaseUrl(url: string): DatabaseUrl {
  const form =
    /^(\w+)(?:\+\w+)?:\/\/(?:([^:/]*)(?::([^@]*))?@)?(?:\[([^/?]+)\]|([^/:?]+))?(?::([^/?]*))?(?:\/([^?]*))?(?:\?(.*))?$/su;
  const parts = form.exec(url);
  const expected = 'it must be mysql+pymysql://user:password@host/name, postgresql://… or sqlite:////path';
  if (parts === null) throw new BackupError('config-invalid', expected);
  const [, name = '', user = '', password = '', bracketed, plain, port = '', database = '', search = ''] =
    parts;
  if (name === 'sqlite') {
    if (database === '')
      throw new BackupError('config-invalid', 'sqlite needs a file: sqlite:////var/lib/name.sqlite');
    return { dialect: 'sqlite', path: database };
  }
  const known = dialects.get(name);
  if (known === undefined)
    throw new BackupError('config-invalid', `"${name}" is not a supported database: ${expected}`);
  if (database === '') throw new BackupError('config-invalid', 'it names no database after the host');
  if (port !== '' && !/^[0-9]{1,5}$/u.test(port)) {
    throw new BackupError(
      'config-invalid',
      'its port is not a number; a "@" or "/" in the password must be percent-encoded',
    );
  }
  const query = new URLSearchParams(search);
  const hostOption = query.get('host') ?? undefined;
  return {
    dialect: known.dialect,
    host: hostOption?.startsWith('/') === false ? hostOption : (bracketed ?? plain ?? 'localhost'),
    port: port === '' ? known.port : Number(port),
    user: percentDecode(user),
    password: percentDecode(password),
    database,
    socketPath: query.get('unix_socket') ?? (hostOption?.startsWith('/') === true ? hostOption : undefined),
    tls: tlsOf(query),
    charset: query.get('charset') ?? undefined,
  };
}

function tlsOf(query: URLSearchParams): DatabaseTls | undefined {
  const mode = query.get('sslmode') ?? query.get('ssl_mode');
  const caFile = query.get('ssl_ca') ?? query.get('sslrootcert') ?? undefined;
  const certFile = query.get('ssl_cert') ?? query.get('sslcert') ?? undefined;
  const keyFile = query.get('ssl_key') ?? query.get('sslkey') ?? undefined;
  const isWanted = caFile !== undefined || certFile !== undefined || /^(?:require|verify)/iu.test(mode ?? '');
  if (!isWanted || /^disable/iu.test(mode ?? '')) return undefined;
  const isHostChecked =
    /^verify[-_](?:full|identity)$/iu.test(mode ?? '') ||
    ['ssl_verify_identity', 'ssl_check_hostname'].some((key) => query.get(key)?.toLowerCase() === 'true');
  const isAuthorityChecked = caFile !== undefined || /^verify/iu.test(mode ?? '');
  return { caFile, certFile, keyFile, verify: isHostChecked ? 'host' : isAuthorityChecked ? 'ca' : 'none' };
}
