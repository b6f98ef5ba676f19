import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { sha256FileKey } from '../../src/layout/names.ts';
import { createSealer, type Sealer } from '../../src/pipeline/sealer.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import { createFaultyStore } from '../support/faulty-store.ts';
import { createMemoryStore, type MemoryStore } from '../support/memory-store.ts';
import { createMemoryVolume, type MemoryVolume } from '../support/memory-volume.ts';
import { createPipelineRun, testContainer } from '../support/pipeline-run.ts';

const mebibyte = 1024 * 1024;
const blockSize = 4096;
let sealer: Sealer;

beforeAll(async () => {
  sealer = await createSealer({ threads: 2 });
});
afterAll(() => sealer.close());

/** 2 MiB: data, a hole of 1.25 MiB, data. */
function someVolume(): MemoryVolume {
  const volume = createMemoryVolume(2 * mebibyte);
  volume.write([
    { offset: 0, length: 512 * 1024 },
    { offset: 1792 * 1024, length: 256 * 1024 },
  ]);
  return volume;
}

/** Changes one bit of the block at 311296. */
function lie(offset: number, bytes: Buffer): void {
  const at = 311_296 + 77 - offset;
  if (at >= 0 && at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ 1;
}

function keysOf(store: MemoryStore): string[] {
  return Array.from(store.containers.get(testContainer)?.keys() ?? []);
}

function closingDocuments(store: MemoryStore): string[] {
  return keysOf(store).filter((key) => /_(?:sha256file|metadata)$/.test(key));
}

describe('order on the store', () => {
  test('objects are put, then flushed, then the hash list ends, then the metadata is put', async () => {
    const store = createMemoryStore();
    const faulty = createFaultyStore(store);
    const run = createPipelineRun(faulty, sealer, 16 * mebibyte);
    const put = faulty.hold('put', /-00003$/);
    const volume = someVolume();
    const running = run.backup({
      source: volume.source(volume.snapshot(), { blockSize }),
      objectBytes: 65_536,
    });
    await put.reached;
    expect(closingDocuments(store)).toEqual([]);
    const flush = faulty.hold('flush');
    put.open();
    await flush.reached;
    expect(closingDocuments(store)).toEqual([]);
    const metadata = faulty.hold('putStream', /_metadata$/);
    flush.open();
    await metadata.reached;
    expect(closingDocuments(store).map((key) => key.slice(-11))).toEqual(['_sha256file']);
    metadata.open();
    const { layer } = await running;
    const offsets = Array.from(layer.metadata.objects, ({ offset }) => offset);
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
    const lastPut = faulty.history.findLastIndex((call) => call.startsWith('put '));
    expect(faulty.history.indexOf('flush')).toBeGreaterThan(lastPut);
  });

  test('the hash list is begun before the first object is stored', async () => {
    const faulty = createFaultyStore(createMemoryStore());
    const volume = someVolume();
    await createPipelineRun(faulty, sealer, 16 * mebibyte).backup({
      source: volume.source(volume.snapshot(), { blockSize }),
    });
    const list = faulty.history.findIndex((call) => call.endsWith('_sha256file'));
    expect(list).toBeLessThan(faulty.history.findIndex((call) => call.startsWith('put ')));
  });
});

describe('failures', () => {
  test('each call of the store failing once ends the backup with that error, without its metadata', async () => {
    const volume = someVolume();
    const first = volume.snapshot();
    volume.write([{ offset: 8192, length: 300_032 }]);
    volume.zero([{ offset: 1800 * 1024, length: 65_536 }]);
    const second = volume.snapshot();
    const probe = createFaultyStore(createMemoryStore());
    const options = { objectBytes: 65_536, codec: 'zlib' } as const;
    const delta = { source: volume.source(second, { blockSize }), mode: 'delta', previous: first } as const;
    const whole = createPipelineRun(probe, sealer, 16 * mebibyte);
    await whole.backup({ source: volume.source(first, { blockSize }), ...options });
    const before = probe.calls;
    await whole.backup({ ...delta, ...options });
    // The last call reads the metadata back, for the test.
    const calls = probe.calls - before - 1;
    expect(calls).toBeGreaterThan(8);
    for (let at = 1; at <= calls; at += 1) {
      const store = createMemoryStore();
      const faulty = createFaultyStore(store);
      const run = createPipelineRun(faulty, sealer, 16 * mebibyte);
      const full = await run.backup({ source: volume.source(first, { blockSize }), ...options });
      const error = new BackupError('store-unavailable', `planned fault ${at}`);
      faulty.plan({ at, error });
      await expect(run.backup({ ...delta, ...options }), `call ${at}`).rejects.toBe(error);
      expect(closingDocuments(store).filter((key) => key.endsWith('_metadata'))).toHaveLength(1);
      expect(run.memory.held).toBe(0);
      expect(faulty.fired).toBe(1);
      faulty.heal();
      await run.backup({ ...delta, ...options });
      expect(full.objectCount).toBeGreaterThan(0);
    }
  });

  test.for(['none', 'zlib'] as const)(
    'bytes that do not match their digest end it as corrupt, naming the offset, without closing documents (%s)',
    async (codec) => {
      const store = createMemoryStore();
      const run = createPipelineRun(store, sealer, 16 * mebibyte);
      const volume = someVolume();
      const source = volume.source(volume.snapshot(), { blockSize, lie });
      const failure = await run.backup({ source, codec }).catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: 'corrupt', details: { offset: 311_296 } });
      expect(String(failure)).toContain("the agent's bytes do not match its digest at offset 311296");
      expect(closingDocuments(store)).toEqual([]);
      expect(run.memory.held).toBe(0);
    },
  );

  test('a source that fails in the middle ends it with that error', async () => {
    const store = createMemoryStore();
    const run = createPipelineRun(store, sealer, 16 * mebibyte);
    const volume = someVolume();
    const error = new BackupError('agent-unavailable', 'the agent is gone');
    const step = (offset: number) => {
      if (offset > 200_000) throw error;
    };
    await expect(run.backup({ source: volume.source(volume.snapshot(), { blockSize, step }) })).rejects.toBe(
      error,
    );
    expect(closingDocuments(store)).toEqual([]);
    expect(run.memory.held).toBe(0);
  });

  test('a damaged hash list of the parent ends an increment as corrupt, in either way', async () => {
    const store = createMemoryStore();
    const run = createPipelineRun(store, sealer, 16 * mebibyte);
    const volume = someVolume();
    const first = volume.snapshot();
    const { layer } = await run.backup({ source: volume.source(first, { blockSize }) });
    store.corrupt(testContainer, sha256FileKey(layer.place.prefix), (bytes) =>
      bytes.subarray(0, bytes.length - 200),
    );
    volume.write([{ offset: 0, length: 4096 }]);
    const source = volume.source(volume.snapshot(), { blockSize });
    await expect(run.backup({ source, mode: 'delta', previous: first })).rejects.toMatchObject({
      code: 'corrupt',
    });
    await expect(run.backup({ source, mode: 'compare' })).rejects.toMatchObject({ code: 'corrupt' });
    expect(closingDocuments(store)).toHaveLength(2);
    expect(run.memory.held).toBe(0);
  });

  test('a parent of another block size, or of a larger volume, is refused as a broken chain', async () => {
    const run = createPipelineRun(createMemoryStore(), sealer, 16 * mebibyte);
    const volume = someVolume();
    await run.backup({ source: volume.source(volume.snapshot(), { blockSize }) });
    const other = volume.source(volume.snapshot(), { blockSize: 8192 });
    await expect(run.backup({ source: other, mode: 'compare' })).rejects.toMatchObject({
      code: 'chain-broken',
    });
    const small = createMemoryVolume(mebibyte);
    const smaller = small.source(small.snapshot(), { blockSize });
    await expect(run.backup({ source: smaller, mode: 'compare' })).rejects.toMatchObject({
      code: 'chain-broken',
    });
  });

  test('a delta that leaves out the block that grew with the volume is corrupt', async () => {
    const run = createPipelineRun(createMemoryStore(), sealer, 16 * mebibyte);
    const volume = createMemoryVolume(mebibyte + 512);
    volume.write([{ offset: 0, length: mebibyte + 512 }]);
    const first = volume.snapshot();
    await run.backup({ source: volume.source(first, { blockSize }) });
    volume.grow(mebibyte + 16_384);
    const honest = volume.source(volume.snapshot(), { blockSize });
    const liar = {
      ...honest,
      async *delta(...asked: Parameters<typeof honest.delta>) {
        for await (const event of honest.delta(...asked)) {
          if (!('offset' in event) || event.offset > mebibyte) yield event;
        }
      },
    };
    await expect(run.backup({ source: liar, mode: 'delta', previous: first })).rejects.toMatchObject({
      code: 'corrupt',
    });
    await run.backup({ source: honest, mode: 'delta', previous: first });
  });
});

describe('cancelling', () => {
  test('a backup that is cancelled at any step of its source ends as cancelled and holds no memory', async () => {
    const volume = someVolume();
    const first = volume.snapshot();
    volume.write([{ offset: 40_960, length: 400_384 }]);
    const second = volume.snapshot();
    for (const mode of ['delta', 'compare'] as const) {
      for (let at = 1, ended = false; !ended; at += 1) {
        const controller = new AbortController();
        const store = createMemoryStore();
        const run = createPipelineRun(store, sealer, 16 * mebibyte);
        await run.backup({ source: volume.source(first, { blockSize }), objectBytes: 65_536 });
        let left = at;
        const cancel = () => {
          left -= 1;
          if (left === 0) controller.abort(new BackupError('cancelled', `at step ${at}`));
        };
        const source = volume.source(second, { blockSize, frameBytes: 65_536, step: cancel });
        const running = run.backup({
          source,
          mode,
          previous: first,
          objectBytes: 65_536,
          signal: controller.signal,
        });
        const result = await running.then(
          () => 'done',
          (error: unknown) => error,
        );
        if (result === 'done') {
          ended = true;
          expect(at).toBeGreaterThan(5);
        } else {
          expect(result, `${mode} at step ${at}`).toMatchObject({
            code: 'cancelled',
            message: `at step ${at}`,
          });
          expect(closingDocuments(store)).toHaveLength(2);
        }
        expect(run.memory.held).toBe(0);
      }
    }
  });

  test.for(['put', 'putStream', 'flush', 'ensureContainer'] as const)(
    'a backup that is cancelled while %s waits ends as cancelled',
    async (call) => {
      const store = createMemoryStore();
      const faulty = createFaultyStore(store);
      const run = createPipelineRun(faulty, sealer, 16 * mebibyte);
      const volume = someVolume();
      const controller = new AbortController();
      const held = faulty.hold(call);
      const source = volume.source(volume.snapshot(), { blockSize });
      const running = run.backup({ source, signal: controller.signal });
      running.catch(() => undefined);
      await held.reached;
      controller.abort(new BackupError('cancelled', 'enough'));
      held.open();
      await expect(running).rejects.toMatchObject({ code: 'cancelled', message: 'enough' });
      expect(closingDocuments(store)).toEqual([]);
      expect(run.memory.held).toBe(0);
    },
  );

  test('an abort without a reason of ours is cancelled too', async () => {
    const run = createPipelineRun(createMemoryStore(), sealer, 16 * mebibyte);
    const volume = someVolume();
    const controller = new AbortController();
    const step = (offset: number) => {
      if (offset > 100_000) controller.abort();
    };
    const source = volume.source(volume.snapshot(), { blockSize, step });
    await expect(run.backup({ source, signal: controller.signal })).rejects.toMatchObject({
      code: 'cancelled',
    });
  });
});

/** Tells of the bodies of hash lists whether they were closed. */
const watched = (store: ObjectStore) => {
  const closed: boolean[] = [];
  const get: ObjectStore['get'] = async (container, key, options) => {
    const { sizeBytes, body } = await store.get(container, key, options);
    if (!key.endsWith('_sha256file')) return { sizeBytes, body };
    const number = closed.push(false) - 1;
    const iterator = body[Symbol.asyncIterator]();
    const close = async () => {
      closed[number] = true;
      return (await iterator.return?.()) ?? { done: true as const, value: undefined };
    };
    const own = { next: () => iterator.next(), return: close };
    return { sizeBytes, body: { [Symbol.asyncIterator]: () => own } };
  };
  return { closed, store: { ...store, get } };
};

describe("the parent's hash list", () => {
  for (const mode of ['delta', 'compare'] as const) {
    test(`is closed when nobody has read of it: the new list cannot be put (${mode})`, async () => {
      const faulty = createFaultyStore(createMemoryStore());
      const { closed, store } = watched(faulty);
      const run = createPipelineRun(store, sealer, 16 * mebibyte);
      const volume = someVolume();
      const first = volume.snapshot();
      await run.backup({ source: volume.source(first, { blockSize }) });
      const refused = new BackupError('store-denied', 'no');
      faulty.plan({ call: 'putStream', key: /_sha256file$/, error: refused });
      const source = volume.source(volume.snapshot(), { blockSize });
      await expect(run.backup({ source, mode, previous: first })).rejects.toBe(refused);
      expect(closed).toEqual([true]);
    });
  }
});

describe('what is stored', () => {
  test('an unchanged increment has no objects and the whole hash list', async () => {
    const store = createMemoryStore();
    const run = createPipelineRun(store, sealer, 16 * mebibyte);
    const volume = someVolume();
    const first = volume.snapshot();
    const full = await run.backup({ source: volume.source(first, { blockSize }) });
    const next = await run.backup({
      source: volume.source(volume.snapshot(), { blockSize }),
      mode: 'delta',
      previous: first,
    });
    expect(next.objectCount).toBe(0);
    const lists = [full, next].map(({ layer }) => {
      const text =
        store.containers.get(testContainer)?.get(sha256FileKey(layer.place.prefix))?.toString() ?? '';
      const { sha256s }: { sha256s: string[] } = JSON.parse(text);
      return sha256s;
    });
    expect(lists[0]).toHaveLength((2 * mebibyte) / blockSize);
    expect(lists[1]).toEqual(lists[0]);
  });

  test('progress ends at what was planned, and counts what was read, sent and stored', async () => {
    const run = createPipelineRun(createMemoryStore(), sealer, 16 * mebibyte);
    const volume = someVolume();
    const first = volume.snapshot();
    const full = await run.backup({ source: volume.source(first, { blockSize }) });
    expect(full.progress).toMatchObject({
      plannedBytes: 2 * mebibyte,
      doneBytes: 2 * mebibyte,
      readBytes: 768 * 1024,
      sentBytes: 768 * 1024,
      storedBytes: full.storedBytes,
    });
    volume.write([{ offset: 0, length: 65_536 }]);
    const second = volume.snapshot();
    const source = volume.source(second, { blockSize });
    const delta = await run.backup({ source, mode: 'delta', previous: first });
    expect(delta.progress).toMatchObject({ plannedBytes: 65_536, doneBytes: 65_536, sentBytes: 65_536 });
    const compare = await run.backup({ source, mode: 'compare' });
    expect(compare.progress).toMatchObject({
      plannedBytes: 2 * mebibyte,
      doneBytes: 2 * mebibyte,
      sentBytes: 0,
    });
    expect(compare.layer.metadata.delta).toMatchObject({ mode: 'compare', readBytes: 768 * 1024 });
  });
});
