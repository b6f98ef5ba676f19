import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { sha256FileKey } from '../../src/layout/names.ts';
import { zeroRuns } from '../../src/pipeline/restore.ts';
import { createSealer, type Sealer } from '../../src/pipeline/sealer.ts';
import { runVerify } from '../../src/pipeline/verify.ts';
import { digestBytes, zeroDigest } from '../../src/model/digest.ts';
import { createFaultPlanStore } from '../support/fault-plan-store.ts';
import { createFaultyStore } from '../support/faulty-store.ts';
import { createMemoryStore, type MemoryStore } from '../support/memory-store.ts';
import { createMemoryTarget, createMemoryVolume, type MemoryTarget } from '../support/memory-volume.ts';
import { createPipelineRun, newProgress, testContainer, type PipelineRun } from '../support/pipeline-run.ts';
import { createRandom } from '../support/random-volume.ts';

const mebibyte = 1024 * 1024;
const blockSize = 4096;
let sealer: Sealer;

beforeAll(async () => {
  sealer = await createSealer({ threads: 2 });
});
afterAll(() => sealer.close());

type Scene = {
  readonly store: MemoryStore;
  readonly run: PipelineRun;
  readonly content: Buffer;
};

/** A chain of three: 3072 units with a hole, then changes, then changes and zeros. */
async function makeScene(codec: 'none' | 'zlib' | 'bz2' | 'zstd', unit = 1024): Promise<Scene> {
  const store = createMemoryStore();
  const run = createPipelineRun(store, sealer, 16 * mebibyte);
  const volume = createMemoryVolume(3072 * unit + 512);
  const objectBytes = 256 * unit;
  volume.write([
    { offset: 0, length: 900 * unit },
    { offset: 2560 * unit, length: 512 * unit + 512 },
  ]);
  let previous = volume.snapshot();
  await run.backup({ source: volume.source(previous, { blockSize }), codec, objectBytes });
  for (const round of [1, 2]) {
    volume.write([{ offset: round * 200 * unit, length: 100 * unit }]);
    if (round === 2) volume.zero([{ offset: 0, length: 40 * unit }]);
    const next = volume.snapshot();
    const source = volume.source(next, { blockSize });
    await run.backup({ source, codec, objectBytes, mode: 'delta', previous });
    previous = next;
  }
  return { store, run, content: volume.contentOf(previous) };
}

function dataKeys({ store }: Scene): string[] {
  const keys = Array.from(store.containers.get(testContainer)?.keys() ?? []);
  return keys.filter((key) => /-\d{5}$/.test(key));
}

describe('damage', () => {
  test.for(['none', 'zlib', 'bz2', 'zstd'] as const)(
    'one byte changed in any object that is needed is found by restore and by verify (%s)',
    async (codec) => {
      const random = createRandom();
      const scene = await makeScene(codec, 256);
      const { store, run } = scene;
      let harmless = 0;
      for (const key of dataKeys(scene)) {
        const original = store.containers.get(testContainer)?.get(key);
        if (original === undefined) throw new Error(`no object ${key}`);
        for (const at of [0, random.between(0, original.length - 1), original.length - 1]) {
          store.corrupt(testContainer, key, (bytes) => {
            bytes[at] = (bytes[at] ?? 0) ^ 0xff;
            return bytes;
          });
          const target = createMemoryTarget(scene.content.length, random);
          const restored = await run.restore(target).then(
            () => null,
            (error: unknown) => error,
          );
          const { badRanges } = await run.verify();
          if (restored === null) {
            // Nobody needs the object, or all that is needed of it is zeros.
            expect(target.bytes.equals(scene.content), `${key} at ${at}`).toBe(true);
            harmless += 1;
          } else {
            expect(restored).toMatchObject({ code: 'corrupt', details: { object: key } });
            expect(target.state).toBe('aborted');
            expect(badRanges.map(({ object }) => object)).toContain(key);
          }
          expect(new Set(badRanges.map(({ object }) => object)).size).toBeLessThanOrEqual(1);
          store.corrupt(testContainer, key, () => Buffer.from(original));
        }
      }
      expect(harmless).toBeLessThan(dataKeys(scene).length * 1.5);
      expect(run.memory.held).toBe(0);
      expect((await run.verify()).badRanges).toEqual([]);
    },
  );

  test.for(['none', 'zlib', 'bz2', 'zstd'] as const)(
    'an object that is cut, goes on after its end, or is empty is corrupt (%s)',
    async (codec) => {
      const random = createRandom();
      const scene = await makeScene(codec, 256);
      const key = scene.run.chain[2]?.metadata.objects.at(-1)?.key ?? '';
      const original = Buffer.from(scene.store.containers.get(testContainer)?.get(key) ?? []);
      const spoilt = [
        original.subarray(0, original.length - 1),
        Buffer.concat([original, Buffer.from([0])]),
        Buffer.concat([original, Buffer.alloc(1_000_000, 7)]),
        Buffer.alloc(0),
      ];
      for (const body of spoilt) {
        scene.store.corrupt(testContainer, key, () => body);
        const target = createMemoryTarget(scene.content.length, random);
        await expect(scene.run.restore(target)).rejects.toMatchObject({
          code: 'corrupt',
          details: { object: key },
        });
        expect((await scene.run.verify()).badRanges).toMatchObject([{ object: key }]);
      }
    },
  );

  test('an error of a damaged object names object, backup and container', async () => {
    const scene = await makeScene('zlib');
    const layer = scene.run.chain.at(-1);
    const entry = layer?.metadata.objects.at(-1);
    scene.store.corrupt(testContainer, entry?.key ?? '', (bytes) => bytes.subarray(0, bytes.length - 5));
    const target = createMemoryTarget(scene.content.length, createRandom());
    const failure = await scene.run.restore(target).catch((error: unknown) => error);
    const message = failure instanceof Error ? failure.message : '';
    for (const name of [entry?.key, layer?.metadata.backupId, testContainer]) expect(message).toContain(name);
  });

  test('an absent object is object-missing for restore, and a bad range for verify', async () => {
    const random = createRandom();
    const scene = await makeScene('zstd');
    const [entry] = scene.run.chain[1]?.metadata.objects ?? [];
    const signal = new AbortController().signal;
    await scene.store.remove(testContainer, entry?.key ?? '', signal);
    const target = createMemoryTarget(scene.content.length, random);
    await expect(scene.run.restore(target)).rejects.toMatchObject({
      code: 'object-missing',
      details: { object: entry?.key },
    });
    expect(target.state).toBe('aborted');
    expect((await scene.run.verify()).badRanges).toEqual([
      {
        offset: entry?.offset,
        length: entry?.length,
        backupId: scene.run.chain[1]?.metadata.backupId,
        object: entry?.key,
        reason: 'it is absent from the store',
      },
    ]);
  });

  test('verify goes on after a fault and reports every bad range in order', async () => {
    const scene = await makeScene('none');
    const spoiled = dataKeys(scene).filter((_, index) => index % 2 === 0);
    for (const key of spoiled) {
      scene.store.corrupt(testContainer, key, (bytes) => {
        for (const at of [5, 8200]) bytes[at] = (bytes[at] ?? 0) ^ 1;
        return bytes;
      });
    }
    const { badRanges, badCount, badBytes, checkedBytes } = await scene.run.verify();
    expect(badCount).toBe(badRanges.length);
    expect(badBytes).toBe(badRanges.reduce((sum, { length }) => sum + length, 0));
    expect(checkedBytes).toBe(scene.content.length);
    expect(badRanges.length).toBeGreaterThan(spoiled.length);
    expect(badRanges.map(({ offset }) => offset)).toEqual(
      badRanges.map(({ offset }) => offset).toSorted((a, b) => a - b),
    );
    expect(badRanges.every(({ length }) => length <= blockSize || length > 2 * blockSize)).toBe(true);
  });

  test.each(['corrupt', 'store-denied', 'message-invalid'] as const)(
    'an object that the store calls %s is a bad range for verify, in its words, and ends a restore',
    async (code) => {
      const scene = await makeScene('none');
      const faulty = createFaultyStore(scene.store);
      const run = createPipelineRun(faulty, sealer, 16 * mebibyte);
      run.chain.push(...scene.run.chain);
      const small = scene.run.chain[1]?.metadata.objects.at(0);
      const other = dataKeys(scene).at(-1) ?? '';
      scene.store.corrupt(testContainer, other, (bytes) => bytes.fill(1, 0, 10));
      const error = new BackupError(code, 'what the store says');
      faulty.plan({ call: 'get', key: new RegExp(`^${small?.key}$`), error, times: 99 });
      const { badRanges } = await run.verify();
      expect(badRanges.map(({ object }) => object).toSorted()).toEqual([small?.key ?? '', other].toSorted());
      expect(badRanges.find(({ object }) => object === small?.key)).toEqual({
        offset: small?.offset,
        length: small?.length,
        backupId: run.chain[1]?.metadata.backupId,
        object: small?.key,
        reason: 'what the store says',
      });
      await expect(
        run.restore(createMemoryTarget(scene.content.length, createRandom())),
      ).rejects.toMatchObject({ code });
    },
  );

  test('an object larger than a slab that the store calls corrupt is a bad range for verify', async () => {
    const scene = await makeScene('none');
    const faulty = createFaultyStore(scene.store);
    const run = createPipelineRun(faulty, sealer, 1.25 * mebibyte);
    run.chain.push(...scene.run.chain);
    const [large] = run.chain[0]?.metadata.objects ?? [];
    const error = new BackupError('corrupt', 'what the store says');
    faulty.plan({ call: 'get', key: new RegExp(`^${large?.key}$`), error, times: 99 });
    expect((await run.verify()).badRanges).toMatchObject([{ object: large?.key, reason: error.message }]);
    expect(run.memory.held).toBe(0);
  });

  test('with a layer that cannot be read every other is checked, each against its own hash list', async () => {
    const scene = await makeScene('zlib');
    const { chain, resources } = scene.run;
    const job = { progress: newProgress(), signal: new AbortController().signal };
    for (const [missing, layer] of chain.entries()) {
      const rest = chain.filter((each) => each !== layer);
      const told = { backupId: layer.metadata.backupId, object: 'its metadata', reason: 'absent' };
      const verify = async () =>
        (await runVerify(resources, { ...job, chain: rest, unreadable: [told] })).badRanges;
      expect((await verify()).map(({ object }) => object)).toEqual(['its metadata']);
      for (const { metadata, place } of rest) {
        const [entry] = metadata.objects;
        const list = sha256FileKey(place.prefix);
        const whole = Buffer.from(scene.store.containers.get(testContainer)?.get(list) ?? []);
        scene.store.corrupt(testContainer, list, (bytes) => {
          const first = bytes.indexOf('"sha256s": [') + 24 + 72 * ((entry?.offset ?? 0) / blockSize);
          bytes.write(bytes.toString('latin1', first, first + 1) === 'a' ? 'b' : 'a', first, 'latin1');
          return bytes;
        });
        expect((await verify()).map(({ object }) => object).toSorted(), `layer ${missing}`).toEqual(
          ['its metadata', entry?.key ?? ''].toSorted(),
        );
        scene.store.corrupt(testContainer, list, () => whole);
      }
    }
    expect(resources.memory.held).toBe(0);
  });

  test('a changed digest in the newest hash list is corrupt', async () => {
    const random = createRandom();
    const scene = await makeScene('zlib');
    const newest = scene.run.chain.at(-1);
    scene.store.corrupt(testContainer, sha256FileKey(newest?.place.prefix ?? ''), (bytes) => {
      const first = bytes.indexOf('"sha256s": [') + 24 + 72 * 55;
      bytes.write(bytes.toString('latin1', first, first + 1) === 'a' ? 'b' : 'a', first, 'latin1');
      return bytes;
    });
    await expect(scene.run.restore(createMemoryTarget(scene.content.length, random))).rejects.toMatchObject({
      code: 'corrupt',
    });
    const { badRanges } = await scene.run.verify();
    expect(badRanges).toHaveLength(1);
    expect(badRanges[0]).toMatchObject({ length: blockSize, offset: 55 * blockSize });
  });

  test('a hash list that is cut ends a restore as corrupt; verify says so and checks the MD5 of the objects', async () => {
    const random = createRandom();
    const scene = await makeScene('zlib');
    const newest = scene.run.chain.at(-1);
    const list = sha256FileKey(newest?.place.prefix ?? '');
    scene.store.corrupt(testContainer, list, (bytes) => bytes.subarray(0, 30_000));
    const [key = ''] = dataKeys(scene);
    const target = createMemoryTarget(scene.content.length, random);
    await expect(scene.run.restore(target)).rejects.toMatchObject({ code: 'corrupt' });
    expect(target.state).toBe('aborted');
    const damaged = await scene.run.verify();
    expect(damaged.badRanges.map(({ object }) => object)).toEqual([list]);
    scene.store.corrupt(testContainer, key, (bytes) => Buffer.from(bytes.toReversed()));
    const both = await scene.run.verify();
    expect(both.badRanges.map(({ object }) => object).toSorted()).toEqual([list, key].toSorted());
  });

  test('a hash list that goes on after its end is corrupt, though every digest of it is right', async () => {
    const random = createRandom();
    const scene = await makeScene('zlib');
    const list = sha256FileKey(scene.run.chain.at(-1)?.place.prefix ?? '');
    scene.store.corrupt(testContainer, list, (bytes) => Buffer.concat([bytes, Buffer.from(']')]));
    const target = createMemoryTarget(scene.content.length, random);
    await expect(scene.run.restore(target)).rejects.toMatchObject({ code: 'corrupt' });
    expect(target.written).toEqual({ data: 0, zero: 0 });
    expect((await scene.run.verify()).badRanges.map(({ object }) => object)).toEqual([list]);
  });

  test('verify holds the MD5 of an object of zeros against its metadata too', async () => {
    const scene = await makeScene('zlib');
    const [full] = scene.run.chain;
    if (full === undefined) throw new Error('no chain');
    const zeros = Array.from(full.metadata.objects).find(({ offset }) => offset === 900 * 1024);
    const objects = Array.from(full.metadata.objects, (entry) =>
      entry.key === zeros?.key ? { ...entry, md5: 'f'.repeat(32) } : entry,
    );
    expect((await scene.run.verify()).badRanges).toEqual([]);
    scene.run.chain[0] = { ...full, metadata: { ...full.metadata, objects } };
    expect((await scene.run.verify()).badRanges).toMatchObject([{ object: zeros?.key }]);
  });

  test('an MD5 in the metadata that differs is corrupt even where every needed block is right', async () => {
    const random = createRandom();
    const scene = await makeScene('zlib');
    const [full] = scene.run.chain;
    if (full === undefined) throw new Error('no chain');
    const objects = Array.from(full.metadata.objects, (entry, at) =>
      at === 0 ? { ...entry, md5: '0'.repeat(32) } : entry,
    );
    scene.run.chain[0] = { ...full, metadata: { ...full.metadata, objects } };
    await expect(scene.run.restore(createMemoryTarget(scene.content.length, random))).rejects.toMatchObject({
      code: 'corrupt',
    });
    const { badRanges } = await scene.run.verify();
    expect(badRanges).toMatchObject([{ object: objects[0]?.key, offset: 0, length: objects[0]?.length }]);
    expect(badRanges[0]?.reason).toContain('MD5');
  });
});

describe('what is fetched and written', () => {
  test('each needed object is fetched once, and zeros are written without fetching', async () => {
    const random = createRandom();
    const store = createMemoryStore();
    const faulty = createFaultyStore(store);
    const run = createPipelineRun(faulty, sealer, 16 * mebibyte);
    const volume = createMemoryVolume(8 * mebibyte);
    volume.write([
      { offset: 0, length: mebibyte },
      { offset: 7 * mebibyte, length: mebibyte },
    ]);
    const first = volume.snapshot();
    const full = await run.backup({ source: volume.source(first, { blockSize }), objectBytes: mebibyte });
    expect(full.objectCount).toBe(8);
    volume.write([{ offset: 0, length: mebibyte }]);
    const source = volume.source(volume.snapshot(), { blockSize });
    await run.backup({ source, mode: 'delta', previous: first, objectBytes: mebibyte });
    const before = faulty.calls;
    const target = createMemoryTarget(volume.bytes.length, random);
    const progress = await run.restore(target);
    expect(target.bytes.equals(volume.bytes)).toBe(true);
    const gets = faulty.history.slice(before).filter((call) => /^get .*-\d{5}$/.test(call));
    expect(gets.map((call) => call.slice(-6))).toEqual(['-00001', '-00008']);
    expect(gets[0]).toContain(run.chain[1]?.place.prefix);
    expect(progress).toMatchObject({
      plannedBytes: 8 * mebibyte,
      doneBytes: 8 * mebibyte,
      sentBytes: 2 * mebibyte,
    });
    expect(target.written).toEqual({ data: 2 * mebibyte, zero: 6 * mebibyte });
  });

  test('a block that was zeroed comes back as zeros over old bytes', async () => {
    const random = createRandom();
    const scene = await makeScene('zlib');
    const target = createMemoryTarget(scene.content.length, random);
    await scene.run.restore(target);
    expect(target.bytes.subarray(0, 40_960).every((byte) => byte === 0)).toBe(true);
    expect(target.bytes.equals(scene.content)).toBe(true);
  });

  test('bytes beyond the backup in a larger target are not touched', async () => {
    const scene = await makeScene('none');
    const target = createMemoryTarget(scene.content.length + mebibyte, createRandom());
    const beyond = Buffer.from(target.bytes.subarray(scene.content.length));
    await scene.run.restore(target);
    expect(target.bytes.subarray(0, scene.content.length).equals(scene.content)).toBe(true);
    expect(target.bytes.subarray(scene.content.length).equals(beyond)).toBe(true);
  });

  test('only zeros that are long enough, or stand alone, are cut out of data', () => {
    const block = 16_384;
    const data = Buffer.alloc(digestBytes, 7);
    const digestsOf = (pattern: string) =>
      Buffer.concat(Array.from(pattern, (each) => (each === 'z' ? zeroDigest(block) : data)));
    const lengths = (pattern: string) =>
      zeroRuns(pattern.length * block, digestsOf(pattern), block).map(
        ({ length, isZero }) => `${length / block}${isZero ? 'z' : 'd'}`,
      );
    expect(lengths('ddzdd')).toEqual(['5d']);
    expect(lengths('ddzzzzd')).toEqual(['2d', '4z', '1d']);
    expect(lengths('zz')).toEqual(['2z']);
    expect(lengths('zd')).toEqual(['2d']);
    expect(lengths('zzzzdzzzzz')).toEqual(['4z', '1d', '5z']);
    const short = Buffer.concat([data, zeroDigest(100)]);
    expect(zeroRuns(block + 100, short, block)).toEqual([{ start: 0, length: block + 100, isZero: false }]);
  });
});

describe('the target', () => {
  test('is opened when the restore has its memory, so that it keeps no place at the agent from who has some', async () => {
    const scene = await makeScene('zlib');
    const { memory } = scene.run;
    const release = await memory.acquire(memory.capacity);
    const target = createMemoryTarget(scene.content.length, createRandom());
    let opened = 0;
    const running = scene.run.restore(async () => {
      opened += 1;
      return target;
    });
    await expect.poll(() => memory.waiting).toBe(1);
    expect(opened).toBe(0);
    release();
    await running;
    expect(opened).toBe(1);
    expect(target.state).toBe('finished');
    expect(target.bytes.equals(scene.content)).toBe(true);
  });

  test('is never opened by a restore that is cancelled while it waits for memory', async () => {
    const scene = await makeScene('zlib');
    const { memory } = scene.run;
    const release = await memory.acquire(memory.capacity);
    const controller = new AbortController();
    let opened = 0;
    const running = scene.run.restore(() => {
      opened += 1;
      return Promise.reject(new Error('a target was opened'));
    }, controller.signal);
    running.catch(() => undefined);
    await expect.poll(() => memory.waiting).toBe(1);
    controller.abort(new BackupError('cancelled', 'enough'));
    await expect(running).rejects.toMatchObject({ code: 'cancelled', message: 'enough' });
    release();
    expect([opened, memory.held, memory.waiting]).toEqual([0, 0, 0]);
  });

  test('that cannot be opened ends the restore with that error before anything is fetched', async () => {
    const scene = await makeScene('zlib');
    const faulty = createFaultyStore(scene.store);
    const run = createPipelineRun(faulty, sealer, 16 * mebibyte);
    run.chain.push(...scene.run.chain);
    const error = new BackupError('agent-unavailable', 'the agent is gone');
    await expect(run.restore(() => Promise.reject(error))).rejects.toBe(error);
    expect(faulty.history.filter((call) => /^get .*-\d{5}$/.test(call))).toEqual([]);
    expect(run.memory.held).toBe(0);
  });

  test('that is opened while the restore is cancelled is aborted', async () => {
    const scene = await makeScene('zlib');
    const target = createMemoryTarget(scene.content.length, createRandom());
    const controller = new AbortController();
    const running = scene.run.restore(async () => {
      controller.abort(new BackupError('cancelled', 'enough'));
      return target;
    }, controller.signal);
    await expect(running).rejects.toMatchObject({ code: 'cancelled', message: 'enough' });
    expect(target.state).toBe('aborted');
    expect(scene.run.memory.held).toBe(0);
  });
});

describe('failures around it', () => {
  test('each call of the store failing once ends the restore with that error, and aborts a target that was opened', async () => {
    const random = createRandom();
    const scene = await makeScene('zlib');
    const { chain } = scene.run;
    const faulty = createFaultyStore(scene.store);
    const run = createPipelineRun(faulty, sealer, 16 * mebibyte);
    run.chain.push(...chain);
    await run.restore(createMemoryTarget(scene.content.length, random));
    const { calls } = faulty;
    for (let at = 1; at <= calls; at += 1) {
      const error = new BackupError('store-unavailable', `planned fault ${at}`);
      faulty.plan({ at, error });
      const target = createMemoryTarget(scene.content.length, random);
      let ending: MemoryTarget['state'] = 'open';
      const open = () => {
        ending = 'aborted';
        return Promise.resolve(target);
      };
      await expect(run.restore(open), `call ${at}`).rejects.toBe(error);
      expect(target.state).toBe(ending);
      expect(run.memory.held).toBe(0);
      faulty.plan({ at, error });
      await expect(run.verify(), `verify, call ${at}`).rejects.toBe(error);
      faulty.heal();
    }
    expect(faulty.fired).toBe(2 * calls);
  });

  test('a body that breaks off in the middle ends it with that error', async () => {
    const scene = await makeScene('none');
    const store = createFaultPlanStore(scene.store, { call: 'getPiece', at: 6, when: 'before' });
    const run = createPipelineRun(store, sealer, 16 * mebibyte);
    run.chain.push(...scene.run.chain);
    const target = createMemoryTarget(scene.content.length, createRandom());
    await expect(run.restore(target)).rejects.toMatchObject({ code: 'store-unavailable' });
    store.assertAllFired();
    expect(target.state).toBe('aborted');
    expect(run.memory.held).toBe(0);
  });

  test('cancelling while an object is awaited ends it as cancelled', async () => {
    const scene = await makeScene('zlib');
    const store = createFaultPlanStore(scene.store, { call: 'get', at: 1, when: 'stall', of: '-0000' });
    const run = createPipelineRun(store, sealer, 16 * mebibyte);
    run.chain.push(...scene.run.chain);
    const target = createMemoryTarget(scene.content.length, createRandom());
    const controller = new AbortController();
    const running = run.restore(target, controller.signal);
    running.catch(() => undefined);
    await vi.waitFor(() => store.assertAllFired());
    controller.abort(new BackupError('cancelled', 'enough'));
    await expect(running).rejects.toMatchObject({ code: 'cancelled', message: 'enough' });
    expect(target.state).toBe('aborted');
    expect(run.memory.held).toBe(0);
  });

  test.for(['writeData', 'writeZero', 'finish'] as const)(
    'a target whose %s fails ends it with that error',
    async (call) => {
      const scene = await makeScene('zlib');
      const target = createMemoryTarget(scene.content.length, createRandom());
      const error = new BackupError('agent-unavailable', 'the agent is gone');
      const broken = { ...target, [call]: () => Promise.reject(error), abort: () => target.abort(error) };
      await expect(scene.run.restore(broken)).rejects.toBe(error);
      expect(target.state).toBe('aborted');
      expect(scene.run.memory.held).toBe(0);
    },
  );

  test('a chain without its full backup is refused', async () => {
    const scene = await makeScene('zlib');
    scene.run.chain.shift();
    const target = createMemoryTarget(scene.content.length, createRandom());
    await expect(scene.run.restore(target)).rejects.toMatchObject({ code: 'chain-broken' });
    expect(target.written).toEqual({ data: 0, zero: 0 });
    await expect(scene.run.verify()).rejects.toMatchObject({ code: 'chain-broken' });
  });
});
