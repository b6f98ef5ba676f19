/**
 * The database URL as SQLAlchemy reads it: `dialect+driver://user:password@host:port/name?option=value`
 * (sqlalchemy/engine/url.py). MySQL and MariaDB, PostgreSQL, and SQLite are supported; Python's driver name does not matter.
 */
import { BackupError } from '../model/errors.ts';
import { mysqlTls, postgresTls, textOf, type DatabaseTls } from './database-tls.ts';
import type { OptionFilePlace } from './mysql-option-file.ts';
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
      /** `bind_address` (MySQL): where connections come from. */
      readonly localAddress: string | undefined;
      readonly tls: DatabaseTls | undefined;
      /** Without TLS where the server has none. */
      readonly isTlsOptional: boolean;
    }
  | { readonly dialect: 'sqlite'; readonly path: string };

const dialects = new Map([
  ['mysql', { dialect: 'mysql', port: 3306 } as const],
  ['mariadb', { dialect: 'mysql', port: 3306 } as const],
  ['postgresql', { dialect: 'postgresql', port: 5432 } as const],
  ['postgres', { dialect: 'postgresql', port: 5432 } as const],
]);

const form =
  /^(\w+)(?:\+\w+)?:\/\/(?:([^:/]*)(?::([^@]*))?@)?(?:\[([^/?]+)\]|([^/:?]+))?(?::([^/?]*))?(?:\/([^?]*))?(?:\?(.*))?$/su;

/** The option file that a MySQL URL names, in PyMySQL's words; undefined if it names none, or is none. */
export function optionFilePlace(url: string): OptionFilePlace | undefined {
  const parts = form.exec(url);
  if (dialects.get(parts?.[1] ?? '')?.dialect !== 'mysql') return undefined;
  const query = new URLSearchParams(parts?.[8]);
  const path = textOf(query, 'read_default_file');
  const group = textOf(query, 'read_default_group');
  if (path === undefined && group === undefined) return undefined;
  return { path: path ?? '/etc/my.cnf', group: group ?? 'client' };
}

/**
 * Parses `url`. What a MySQL URL does not say is taken from `fromFile`, the options of its option file. Throws
 * `config-invalid`; the message does not contain the URL, which holds a password.
 */
export function parseDatabaseUrl(
  url: string,
  fromFile: ReadonlyMap<string, string> = new Map(),
): DatabaseUrl {
  const parts = form.exec(url);
  const expected = 'it must be mysql+pymysql://user:password@host/name, postgresql://… or sqlite:////path';
  if (parts === null) throw new BackupError('config-invalid', expected);
  const [, name = '', user = '', password = '', bracketed, plain, port = '', path = '', search = ''] = parts;
  if (name === 'sqlite') {
    if (path === '')
      throw new BackupError('config-invalid', 'sqlite needs a file: sqlite:////var/lib/name.sqlite');
    return { dialect: 'sqlite', path };
  }
  const known = dialects.get(name);
  if (known === undefined)
    throw new BackupError('config-invalid', `"${name}" is not a supported database: ${expected}`);
  const { dialect } = known;
  const option = (key: string) => (dialect === 'mysql' ? fromFile.get(key) : undefined);
  const database = path || option('database');
  if (database === undefined) {
    throw new BackupError('config-invalid', 'it names no database after the host');
  }
  const query = new URLSearchParams(search);
  const hostOption = textOf(query, 'host');
  const isSocket = hostOption?.startsWith('/') === true;
  const { tls, isOptional } =
    dialect === 'mysql' ? { tls: mysqlTls(query, fromFile), isOptional: false } : postgresTls(query);
  return {
    dialect,
    host: (isSocket ? undefined : hostOption) ?? bracketed ?? plain ?? option('host') ?? 'localhost',
    port:
      portOf(port, 'its port is not a number; a "@" or "/" in the password must be percent-encoded') ??
      portOf(option('port'), 'the port of its option file is not a number') ??
      known.port,
    user: percentDecode(user) || (option('user') ?? ''),
    password: percentDecode(password) || (option('password') ?? ''),
    database,
    socketPath: textOf(query, 'unix_socket') ?? (isSocket ? hostOption : undefined) ?? option('socket'),
    localAddress: textOf(query, 'bind_address') ?? option('bind-address'),
    tls,
    isTlsOptional: isOptional,
  };
}

function portOf(text: string | undefined, complaint: string): number | undefined {
  if (text === undefined || text === '') return undefined;
  if (/^[0-9]{1,5}$/u.test(text)) return Number(text);
  throw new BackupError('config-invalid', complaint);
}
