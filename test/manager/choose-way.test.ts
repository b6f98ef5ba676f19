import { rm, truncate, writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { StorageBackend } from '../../src/manager/environment.ts';
import type { Backup } from '../../src/model/backup.ts';
import { BackupError } from '../../src/model/errors.ts';
import { volumeName } from '../../src/model/names.ts';
import type { BlockSource } from '../../src/volume/block-source.ts';
import { patternBytes } from '../support/pattern.ts';
import { blockSize, createRig, keyOf, keysIn, startMachine, type Machine, type Rig } from './rig.ts';

let machine: Machine;
let rig: Rig;
let volumeId: string;
let parent: Backup;
const sizeBytes = 40 * blockSize;
const { signal } = new AbortController();

beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(async () => {
  rig = createRig(machine);
  volumeId = await rig.addVolume(sizeBytes);
  ({ row: parent } = await rig.backup(volumeId));
  await rig.change(volumeId, 5 * blockSize, 2 * blockSize, 2);
});
afterEach(() => rig.close());

/** Makes an increment, and restores it: whatever the way, the bytes are those of the volume. */
async function increment(mode: string, reason: RegExp): Promise<Backup> {
  const { row, operation } = await rig.backup(volumeId, { incremental: true });
  expect(operation).toMatchObject({ state: 'succeeded', mode });
  expect(operation.reason).toMatch(reason);
  expect(row.parentId).toBe(mode === 'full' ? null : parent.id);
  expect((await rig.row(parent.id)).dependents).toBe(mode === 'full' ? 0 : 1);
  const bytes = await rig.bytes(volumeId);
  const target = await rig.addVolume(bytes.length, 9);
  await rig.restore(row.id, target);
  expect((await rig.bytes(target)).equals(bytes)).toBe(true);
  return row;
}

function wrapSource(wrap: (source: BlockSource) => Partial<BlockSource>): void {
  const storage: StorageBackend = rig.environment.storage.forHost('host@file#file');
  const openSource = storage.openSource.bind(storage);
  rig.overrides.openSource = (of) => {
    const source = openSource(of);
    return {
      lengthBytes: source.lengthBytes,
      blockSize: source.blockSize,
      delta: (...args) => source.delta(...args),
      digests: (...args) => source.digests(...args),
      blocks: (...args) => source.blocks(...args),
      ...wrap(source),
    };
  };
}

test('a snapshot that is gone makes a compare', async () => {
  const { snapshots } = await machine.client.volume('file', volumeName(volumeId), signal);
  for (const { name } of snapshots) {
    await machine.client.deleteSnapshot('file', volumeName(volumeId), name, signal);
  }
  await increment('compare', /is gone/);
});

test('a snapshot that was made anew under its name makes a compare', async () => {
  const { snapshots } = await machine.client.volume('file', volumeName(volumeId), signal);
  for (const { name } of snapshots) {
    await machine.client.deleteSnapshot('file', volumeName(volumeId), name, signal);
    await machine.client.createSnapshot('file', volumeName(volumeId), name, signal);
  }
  await increment('compare', /was made anew/);
});

test('a backend that has no delta makes a compare', async () => {
  const info = await rig.environment.storage.forHost('host@file').info(signal);
  rig.overrides.info = async () => ({ ...info, delta: 'none' });
  await increment('compare', /cannot list changes/);
});

test('a volume that was made anew under its name makes a compare', async () => {
  await rm(rig.path(volumeId));
  await writeFile(rig.path(volumeId), patternBytes(sizeBytes, 4));
  await increment('compare', /is not the one that the parent/);
});

test('a parent of another backend makes a compare', async () => {
  const { container, key } = keyOf(parent, '_metadata');
  rig.objects.corrupt(container, key, (bytes) =>
    Buffer.from(String(bytes).replace('"host@file"', '"other@file"')),
  );
  await increment('compare', /moved from other@file to host@file/);
});

test('a parent made by cinder-backup makes a compare', async () => {
  const { container, key } = keyOf(parent, '_metadata');
  rig.objects.corrupt(container, key, (bytes) => {
    const { cinder_delta: _, ...python } = JSON.parse(String(bytes));
    return Buffer.from(JSON.stringify(python));
  });
  await increment('compare', /was made by cinder-backup/);
});

test('a delta that the agent refuses in the call becomes a compare', async () => {
  wrapSource((source) => ({
    delta: async function* (previous, inner) {
      if (previous !== null) throw new BackupError('delta-unavailable', 'the maps are lost');
      yield* source.delta(previous, inner);
    },
  }));
  const row = await increment('compare', /the maps are lost/);
  const { container, key } = keyOf(row, '_metadata');
  const document = JSON.parse(String(rig.objects.containers.get(container)?.get(key)));
  expect(document.cinder_delta.mode).toBe('compare');
});

test('a parent whose metadata is missing makes a full', async () => {
  const { container, key } = keyOf(parent, '_metadata');
  await rig.objects.remove(container, key, signal);
  await increment('full', /_metadata is absent/);
});

test('a parent whose metadata is damaged makes a full', async () => {
  const { container, key } = keyOf(parent, '_metadata');
  rig.objects.corrupt(container, key, (bytes) => bytes.subarray(0, bytes.length / 2));
  await increment('full', /it was damaged/);
});

test('a parent that lacks an object makes a full', async () => {
  const { container, key } = keyOf(parent, '-00007');
  await rig.objects.remove(container, key, signal);
  await increment('full', /1 missing, such as .*-00007/);
});

test('a parent with an object too many makes a full', async () => {
  const { container, key } = keyOf(parent, '-00099');
  await rig.objects.put(container, key, Buffer.from('stray'), { signal: signal });
  await increment('full', /1 too many, such as .*-00099/);
});

test('a parent without its hash list makes a full', async () => {
  const { container, key } = keyOf(parent, '_sha256file');
  await rig.objects.remove(container, key, signal);
  await increment('full', /missing/);
});

test.each([0.3, 0.6, 0.95])(
  'a hash list that is damaged at %d of it makes a full, and leaves nothing of the try',
  async (place) => {
    const { container, key } = keyOf(parent, '_sha256file');
    rig.objects.corrupt(container, key, (bytes) => {
      bytes.write('XYZ!', Math.floor(bytes.length * place));
      return bytes;
    });
    const row = await increment('full', /the parent cannot be used/);
    expect(keysIn(rig).filter((each) => each.includes(row.id))).toHaveLength(12);
  },
);

test('another block size makes a full', async () => {
  const other = createRig(machine, { blockSize: 2 * blockSize, on: rig });
  const { operation } = await other.backup(volumeId, { incremental: true });
  expect(operation).toMatchObject({ state: 'succeeded', mode: 'full' });
  expect(operation.reason).toMatch(/has blocks of 4096 bytes, this service makes 8192/);
});

test('a volume that shrank makes a full', async () => {
  await truncate(rig.path(volumeId), sizeBytes - blockSize);
  await increment('full', /shrank from 163840 to 159744/);
});

test('a parent that is gone from the rows makes a full', async () => {
  const hold = rig.store.hold('get', /_metadata$/);
  const making = rig.backup(volumeId, { incremental: true });
  await hold.reached;
  hold.open();
  const { row } = await making;
  await rig.database.sql.updateTable('backups').set({ deleted: true }).where('id', '=', parent.id).execute();
  await rig.change(volumeId, 0, blockSize, 6);
  const { operation } = await rig.backup(volumeId, { incremental: true });
  expect(operation).toMatchObject({ state: 'succeeded', mode: 'full' });
  expect(operation.reason).toMatch(new RegExp(`backup ${parent.id}, the parent of ${row.id}, is gone`));
});

test('a store that cannot be asked about the parent is an error, not a full', async () => {
  rig.store.plan({
    call: 'get',
    key: /_metadata$/,
    error: new BackupError('store-unavailable', 'no answer'),
    times: 99,
  });
  const { row, operation } = await rig.backup(volumeId, { incremental: true });
  expect(operation).toMatchObject({ state: 'failed', error: { code: 'store-unavailable' } });
  expect(row).toMatchObject({ status: 'error', failReason: 'no answer' });
});

test('an agent that sends bytes that are not those of its digests ends in an error', async () => {
  wrapSource((source) => ({
    delta: async function* (previous, inner) {
      for await (const event of source.delta(previous, inner)) {
        if (event.kind !== 'data') yield event;
        else {
          const bytes = Buffer.from(event.bytes);
          bytes[17] = (bytes[17] ?? 0) ^ 1;
          yield { ...event, bytes };
        }
      }
    },
  }));
  const { row, operation } = await rig.backup(volumeId, { incremental: true });
  expect(operation).toMatchObject({ state: 'failed', mode: 'delta', error: { code: 'corrupt' } });
  expect(row.status).toBe('error');
  expect(keysIn(rig).some((key) => key.includes(row.id))).toBe(false);
});

test('a chain with more objects than half of what a restore has memory for gets a full backup', async () => {
  const objects = (await rig.row(parent.id)).objectCount ?? 0;
  const small = createRig(machine, { on: rig, maxObjects: 2 * objects - 1 });
  const { row, operation } = await small.backup(volumeId, { incremental: true });
  expect(row.parentId).toBeNull();
  expect(operation).toMatchObject({ state: 'succeeded', mode: 'full' });
  expect(operation.reason).toMatch(/half of what a restore has memory for/);
});

test('a parent is checked without memory for its objects', async () => {
  const fresh = createRig(machine, { on: rig });
  const { operation } = await fresh.backup(volumeId, { incremental: true });
  expect(operation).toMatchObject({ state: 'succeeded', mode: 'delta' });
  expect(fresh.environment.resources.objectLists.peak).toBe(0);
});
