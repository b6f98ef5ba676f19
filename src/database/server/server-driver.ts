/**
 * kysely's driver over a pool. A statement outside of a transaction takes a connection for itself, and is tried again if that
 * changes nothing: a SELECT always, another one only if nothing of it was done. In a transaction an error ends the
 * transaction: `transaction` of the database begins it anew.
 */
import type { CompiledQuery, DatabaseConnection, Driver, QueryResult } from 'kysely';
import { BackupError, isBackupError } from '../../model/errors.ts';
import { asUndone, type Retry } from '../transaction.ts';
import type { Pool } from './pool.ts';
import type { Answer, Wire } from './wire.ts';

type Lease = { wire: Wire | undefined; isBegun: boolean };

export function createServerDriver(pool: Pool, retry: Retry): Driver {
  const leases = new WeakMap<DatabaseConnection, Lease>();

  const leaseOf = (connection: DatabaseConnection): Lease => {
    const lease = leases.get(connection);
    if (lease === undefined)
      throw new BackupError('bug', 'broken invariant: a connection of another driver was used');
    return lease;
  };
  const giveBack = (lease: Lease) => {
    if (lease.wire !== undefined) pool.give(lease.wire);
    lease.wire = undefined;
    lease.isBegun = false;
  };
  const runAlone = (query: CompiledQuery) =>
    retry(async () => {
      const wire = await pool.take();
      try {
        return await wire.run(query.sql, query.parameters);
      } catch (error) {
        throw isRepeatable(query) ? asUndone(error) : error;
      } finally {
        pool.give(wire);
      }
    });
  const begun = ({ wire, isBegun }: Lease): Wire => {
    if (wire !== undefined && isBegun) return wire;
    throw new BackupError('bug', 'broken invariant: no transaction is open on this connection');
  };

  return {
    init: () => Promise.resolve(),
    acquireConnection() {
      const lease: Lease = { wire: undefined, isBegun: false };
      const connection: DatabaseConnection = {
        async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
          if (!lease.isBegun) return toResult<R>(await runAlone(query));
          try {
            return toResult<R>(await begun(lease).run(query.sql, query.parameters));
          } catch (error) {
            throw asUndone(error);
          }
        },
        streamQuery() {
          throw new BackupError('bug', 'broken invariant: rows are not streamed');
        },
      };
      leases.set(connection, lease);
      return Promise.resolve(connection);
    },
    async beginTransaction(connection) {
      const lease = leaseOf(connection);
      lease.wire = await pool.take();
      try {
        await lease.wire.run('begin', []);
        lease.isBegun = true;
      } catch (error) {
        giveBack(lease);
        throw asUndone(error);
      }
    },
    async commitTransaction(connection) {
      await begun(leaseOf(connection)).run('commit', []);
    },
    async rollbackTransaction(connection) {
      const wire = begun(leaseOf(connection));
      if (!wire.isUsable) return;
      try {
        await wire.run('rollback', []);
      } catch (error) {
        // The server rolls back what a lost connection had begun; the error to tell is that which led here.
        if (!isBackupError(error)) throw error;
        await wire.close();
      }
    },
    releaseConnection(connection) {
      giveBack(leaseOf(connection));
      return Promise.resolve();
    },
    destroy: () => pool.close(),
  };
}

function isRepeatable({ query }: CompiledQuery): boolean {
  return query.kind === 'SelectQueryNode' || query.kind === 'RawNode';
}

/** kysely alone knows by its types what the rows of a statement are. */
function toResult<R>({ rows, affectedRows }: Answer): QueryResult<R> {
  return { rows: rows as readonly unknown[] as R[], numAffectedRows: BigInt(affectedRows) };
}
