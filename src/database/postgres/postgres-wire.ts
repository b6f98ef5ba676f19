/** One connection to PostgreSQL through pg: rows as texts, numbers and booleans; times as UTC text. */
import type { ConnectionOptions } from 'node:tls';
import { Client, TypeOverrides, types } from 'pg';
import { inTime } from '../../async/in-time.ts';
import type { DatabaseTls } from '../../config/database-tls.ts';
import { connectTimeoutMs, farewellTimeoutMs, keepAliveDelayMs } from '../server/deadline.ts';
import { readTlsFiles } from '../server/pem-file.ts';
import { toServerValue, type Row, type Wire } from '../server/wire.ts';
import { isTlsDeclined, postgresError } from './postgres-error.ts';

export type PostgresLogin = {
  readonly server: string;
  readonly host: string;
  readonly port: number;
  readonly socketPath: string | undefined;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly tls: DatabaseTls | undefined;
  /** Without TLS where the server declines it, as libpq does with sslmode prefer. */
  readonly isTlsOptional: boolean;
  readonly statementTimeoutMs: number;
};

/** Logs in. Errors as OpenWire. */
export async function openPostgresWire(login: PostgresLogin): Promise<Wire> {
  const at = { server: login.server, what: 'be reached', lost: 'undone' } as const;
  const tls = login.socketPath === undefined ? login.tls : undefined;
  try {
    return await logIn(login, tls);
  } catch (error) {
    if (tls === undefined || !login.isTlsOptional || !isTlsDeclined(error)) throw postgresError(at, error);
  }
  try {
    return await logIn(login, undefined);
  } catch (error) {
    throw postgresError(at, error);
  }
}

async function logIn(login: PostgresLogin, tls: DatabaseTls | undefined): Promise<Wire> {
  const { host, port, socketPath, user, password, database } = login;
  const client = new Client({
    host: socketPath ?? host,
    port,
    user,
    password,
    database,
    ssl: tls === undefined ? false : await tlsOptions(tls),
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveDelayMs,
    application_name: 'cinder-delta',
    types: serverTypes(),
  });
  const wire = wireOf(client, login);
  try {
    await client.connect();
    return wire;
  } catch (error) {
    await wire.close();
    throw error;
  }
}

/** `timestamp` has no zone, and is UTC here: pg would read it as local time. `bigint` is what count() gives. */
function serverTypes(): TypeOverrides {
  const overrides = new TypeOverrides();
  overrides.setTypeParser(types.builtins.TIMESTAMP, String);
  overrides.setTypeParser(types.builtins.INT8, Number);
  return overrides;
}

async function tlsOptions(tls: DatabaseTls): Promise<ConnectionOptions> {
  return {
    ...(await readTlsFiles(tls)),
    ...(tls.verify === 'host' ? {} : { checkServerIdentity: () => undefined }),
  };
}

function wireOf(client: Client, { server, statementTimeoutMs }: PostgresLogin): Wire {
  let isUsable = true;
  const lose = () => {
    isUsable = false;
  };
  client.on('error', lose);
  client.on('end', lose);

  return {
    get isUsable() {
      return isUsable;
    },
    async run(text, values) {
      const at = { server, what: `run "${text.slice(0, 60)}…"`, lost: 'unknown' } as const;
      try {
        const parameters = values.map((value) => toServerValue(value, 3));
        const work = client.query<Row, unknown[]>(text, parameters);
        const { rows, rowCount } = await inTime(work, statementTimeoutMs, () => {
          throw new Error(`no answer within ${statementTimeoutMs / 1000} s`);
        });
        return { rows, affectedRows: rowCount ?? 0 };
      } catch (error) {
        if (!isAnswer(error)) lose();
        throw postgresError(at, error);
      }
    },
    async close() {
      lose();
      try {
        await inTime(client.end(), farewellTimeoutMs, () => undefined);
      } catch {
        // The server has gone already: what end() would have told it is no longer of interest.
      }
    },
  };
}

/** Whether the server said it, and the connection goes on. */
function isAnswer(error: unknown): boolean {
  return error instanceof Error && 'severity' in error && error.severity === 'ERROR';
}
