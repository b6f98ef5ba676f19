/** The manager's verbs over Cinder's tables on real servers, which are killed and cut off again and again meanwhile. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Database } from '../../../src/database/database.ts';
import { defaultQuotaRules } from '../../../src/database/quotas.ts';
import { emptyTables } from '../../contract/database.ts';
import { blockSize, createRig, startMachine, type Machine, type Rig } from '../../manager/rig.ts';
import { startCuttingProxy, type CuttingProxy } from '../../support/cutting-proxy.ts';
import {
  makeCinderDatabase,
  openTestDatabase,
  startDatabaseServer,
  type DatabaseServer,
} from '../../support/database-server.ts';

const sizeBytes = 64 * blockSize;

for (const kind of ['mariadb', 'postgresql'] as const) {
  describe(`on ${kind}`, () => {
    let server: DatabaseServer;
    let proxy: CuttingProxy;
    let direct: Database;
    let machine: Machine;
    let rig: Rig;

    beforeAll(async () => {
      machine = await startMachine();
      server = await startDatabaseServer(kind);
      await makeCinderDatabase(server, 'cinder');
      proxy = await startCuttingProxy(server.port);
      direct = await openTestDatabase(server.url('cinder'));
    });
    afterAll(async () => {
      await direct.close();
      await proxy.close();
      await server.stop();
      await machine.close();
    });
    beforeEach(async () => {
      await emptyTables(direct);
      const database = await openTestDatabase(server.url('cinder', { port: proxy.port }));
      rig = createRig(machine, { database, quota: defaultQuotaRules });
    });
    afterEach(() => rig.close());

    /** A full backup and increments of it, restored and deleted; every step must succeed. */
    const live = async (increments: number) => {
      const volumeId = await rig.addVolume(sizeBytes);
      const target = await rig.addVolume(sizeBytes, 9);
      const chain = [(await rig.backup(volumeId)).row];
      for (let count = 1; count <= increments; count += 1) {
        await rig.change(volumeId, count * 3 * blockSize, blockSize, count + 1);
        chain.push((await rig.backup(volumeId, { incremental: true })).row);
      }
      expect(chain.map(({ status }) => status)).toEqual(chain.map(() => 'available'));
      const newest = chain.at(-1);
      if (newest === undefined) throw new Error('there is no backup');
      expect(await rig.restore(newest.id, target)).toMatchObject({ operation: { state: 'succeeded' } });
      expect(await rig.bytes(target)).toEqual(await rig.bytes(volumeId));
      expect([await rig.volumeStatus(volumeId), await rig.volumeStatus(target)]).toEqual([
        'available',
        'available',
      ]);
      const rows = await Promise.all(chain.map(({ id }) => rig.row(id)));
      // Within one second the parent may be any of the chain: its times have no fraction.
      expect(rows.filter(({ parentId }) => parentId !== null)).toHaveLength(increments);
      for (const { id, dependents } of rows) {
        expect(dependents).toBe(rows.filter(({ parentId }) => parentId === id).length);
      }
      for (const { id } of chain.toReversed()) {
        expect(await rig.remove(id)).toMatchObject({ state: 'succeeded' });
        expect(await rig.row(id)).toMatchObject({ status: 'deleted', deleted: true });
      }
      const usages = await direct.sql.selectFrom('quota_usages').select('in_use').execute();
      expect(usages).toEqual([{ in_use: 0 }, { in_use: 0 }]);
    };

    test('a chain is made, restored and deleted', async () => {
      await live(2);
    });

    test('a chain is made, restored and deleted while connections are cut again and again', async () => {
      const stopped = new AbortController();
      const cutting = (async () => {
        while (!stopped.signal.aborted) {
          for (const when of ['before the server', 'after the server'] as const) {
            proxy.plan({ at: /\bcommit/, when, times: 2 });
            await sleep(40);
            // Some have to get through: a statement that does not know its own work is done until its answer comes.
            proxy.plan({ at: /\bcommit/, when, times: 0 });
            await sleep(40);
          }
          proxy.reset();
        }
      })();
      try {
        await live(8);
      } finally {
        stopped.abort();
        await cutting;
      }
    });

    test('a chain is made, restored and deleted while the server is killed again and again', async () => {
      const stopped = new AbortController();
      const seen = { kills: 0, lastStartMs: 0 };
      const killing = (async () => {
        while (!stopped.signal.aborted) {
          // Up at least as long as down: the work has to get on, however long a start takes.
          await sleep(Math.max(150, seen.lastStartMs));
          await server.kill();
          seen.kills += 1;
          const started = performance.now();
          await server.start();
          seen.lastStartMs = performance.now() - started;
        }
      })();
      try {
        // Where a start takes long, one life may be over before the second kill.
        do await live(8);
        while (seen.kills < 2);
      } finally {
        stopped.abort();
        await killing;
      }
      expect(seen.kills).toBeGreaterThan(1);
    });
  });
}
