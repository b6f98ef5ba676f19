/** TLS as the options of a database URL ask for it, in the words of the driver that Cinder uses. */
import { BackupError } from '../model/errors.ts';

export type DatabaseTls = {
  readonly caFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** `ca`: the certificate must be of the authority; `host`: and be that of the host. */
  readonly verify: 'none' | 'ca' | 'host';
  /** In OpenSSL's words; the library's choice unless given. */
  readonly ciphers?: string;
};

const mysqlKeys = new Set([
  'ssl_ca',
  'ssl_cert',
  'ssl_key',
  'ssl_cipher',
  'ssl_check_hostname',
  'ssl_verify_cert',
  'ssl_verify_identity',
  'ssl_disabled',
  'ssl_mode',
]);

const mysqlModes = ['DISABLED', 'PREFERRED', 'REQUIRED', 'VERIFY_CA', 'VERIFY_IDENTITY'];

const mysqlRemedies: Readonly<Record<string, string>> = {
  ssl_capath: 'name one file of certificates, with ssl_ca',
};

/** Two of libpq's have no part in whether a connection is safe. */
const postgresKeys = new Set(['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'sslcompression', 'sslsni']);

/**
 * What SQLAlchemy and PyMySQL make of `ssl_*` (dialects/mysql/mysqldb.py create_connect_args, pymysql/connections.py), and
 * mysqlclient of `ssl_mode`. Where a check is asked for in words it is made, also where PyMySQL forgets ssl_ca for it.
 * `fromFile` are the options of an option file; those of the URL go before them. Throws `config-invalid`.
 */
export function mysqlTls(
  query: URLSearchParams,
  fromFile: ReadonlyMap<string, string>,
): DatabaseTls | undefined {
  refuseOthers(query, mysqlKeys, mysqlRemedies);
  for (const [key, remedy] of Object.entries(mysqlRemedies)) {
    const option = key.replace('_', '-');
    if (fromFile.has(option)) throw unsupported(`${option} of its option file`, remedy);
  }
  const fileOf = (name: 'ca' | 'cert' | 'key') => textOf(query, `ssl_${name}`) ?? fromFile.get(`ssl-${name}`);
  const [caFile, certFile, keyFile] = [fileOf('ca'), fileOf('cert'), fileOf('key')];
  const ciphers = textOf(query, 'ssl_cipher') ?? fromFile.get('ssl-cipher');
  const asked = modeOf(query, 'ssl_mode', mysqlModes);
  // What mysqlclient does without it.
  const mode = asked === 'PREFERRED' ? undefined : asked;
  const verifiesAuthority = flagOf(query, 'ssl_verify_cert') ?? (mode === 'VERIFY_CA' ? true : undefined);
  const checksHost =
    flagOf(query, 'ssl_verify_identity') ??
    flagOf(query, 'ssl_check_hostname') ??
    (mode === undefined ? undefined : mode === 'VERIFY_IDENTITY');
  const isDisabled = flagOf(query, 'ssl_disabled') === true || mode === 'DISABLED';
  const given = [caFile, certFile, keyFile, ciphers, mode, verifiesAuthority, checksHost];
  if (isDisabled || given.every((one) => one === undefined)) return undefined;
  const hasAuthority = caFile !== undefined;
  const isHostChecked = checksHost ?? (hasAuthority && verifiesAuthority === undefined);
  return {
    caFile,
    certFile,
    keyFile,
    verify: isHostChecked ? 'host' : (verifiesAuthority ?? hasAuthority) ? 'ca' : 'none',
    ...(ciphers === undefined ? {} : { ciphers }),
  };
}

/**
 * What libpq makes of `sslmode` (https://www.postgresql.org/docs/current/libpq-ssl.html); without it `prefer`, unless
 * certificates are named. `isOptional`: without TLS where the server has none. Throws `config-invalid`.
 */
export function postgresTls(query: URLSearchParams): {
  readonly tls: DatabaseTls | undefined;
  readonly isOptional: boolean;
} {
  refuseOthers(query, postgresKeys, {});
  const [caFile, certFile, keyFile] = ['sslrootcert', 'sslcert', 'sslkey'].map((key) => textOf(query, key));
  const modes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'];
  const hasFiles = caFile !== undefined || certFile !== undefined;
  const mode = modeOf(query, 'sslmode', modes) ?? (hasFiles ? 'require' : 'prefer');
  if (mode === 'disable') return { tls: undefined, isOptional: false };
  if (mode === 'allow' || mode === 'prefer') {
    return { tls: { caFile: undefined, certFile, keyFile, verify: 'none' }, isOptional: true };
  }
  const isAuthorityChecked = mode === 'verify-ca' || caFile !== undefined;
  const verify = mode === 'verify-full' ? 'host' : isAuthorityChecked ? 'ca' : 'none';
  return { tls: { caFile, certFile, keyFile, verify }, isOptional: false };
}

/** The value of `key`, as SQLAlchemy reads a query: an empty one is none. */
export function textOf(query: URLSearchParams, key: string): string | undefined {
  const value = query.get(key);
  return value === null || value === '' ? undefined : value;
}

function refuseOthers(
  query: URLSearchParams,
  known: ReadonlySet<string>,
  remedies: Readonly<Record<string, string>>,
): void {
  for (const [key, value] of query) {
    if (value === '' || !key.startsWith('ssl') || known.has(key)) continue;
    throw unsupported(key, remedies[key] ?? `take it out, or use one of ${[...known].join(', ')}`);
  }
}

function unsupported(key: string, remedy: string): BackupError {
  return new BackupError('config-invalid', `${key} is not supported: ${remedy}`);
}

const truths = new Set(['true', '1', 'yes', 'y', 't', 'on', 'required', 'optional']);
const falsehoods = new Set(['false', '0', 'no', 'n', 'f', 'off', 'none']);

function flagOf(query: URLSearchParams, key: string): boolean | undefined {
  const text = textOf(query, key)?.toLowerCase();
  if (text === undefined) return undefined;
  if (truths.has(text)) return true;
  if (falsehoods.has(text)) return false;
  throw new BackupError('config-invalid', `its ${key} must be true or false`);
}

function modeOf(query: URLSearchParams, key: string, modes: readonly string[]): string | undefined {
  const text = textOf(query, key);
  const mode = modes.find((one) => one.toLowerCase() === text?.toLowerCase());
  if (text === undefined || mode !== undefined) return mode;
  throw new BackupError('config-invalid', `its ${key} must be one of ${modes.join(', ')}`);
}
