/**
 * What every object store must do: the contract of src/store/object-store.ts as tests.
 * Each implementation's own test file calls `objectStoreContract` once.
 */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupPrefix } from '../../src/layout/names.ts';
import { BackupError, isBackupError, type ErrorCode } from '../../src/model/errors.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import { inRecycledPieces, patternBytes } from '../support/pattern.ts';
import { listedObjects } from '../support/listed-keys.ts';

export type StoreUnderTest = {
  readonly store: ObjectStore;
  /** A container name that this store accepts and that is new at every call. */
  freshContainer(): string;
  /** Closes what stands behind the store; the suite has closed the store itself. */
  dispose(): Promise<void>;
  /** How many objects the listing test makes: more than one page of this store. 1100 unless given. */
  readonly listedObjects?: number;
};

const MiB = 1024 * 1024;
const live = new AbortController().signal;
const options = { signal: live };

/** Runs the suite; `makeStore` is called once. */
export function objectStoreContract(name: string, makeStore: () => Promise<StoreUnderTest>): void {
  describe(`object store contract: ${name}`, () => {
    let made: StoreUnderTest;
    let store: ObjectStore;

    beforeAll(async () => {
      made = await makeStore();
      store = made.store;
    });
    afterAll(async () => {
      await store.close();
      await made.dispose();
    });

    const freshContainer = async (): Promise<string> => {
      const container = made.freshContainer();
      await store.ensureContainer(container, live);
      return container;
    };
    const freshPrefix = (): string =>
      backupPrefix(store.kind === 'posix' ? 'posix' : 'swift', {
        volumeId: randomUUID(),
        backupId: randomUUID(),
        at: new Date(),
        availabilityZone: 'nova',
      });
    /** Keeps the pieces as they come: they belong to the reader. */
    const read = async (container: string, key: string): Promise<Buffer> => {
      const { sizeBytes, body } = await store.get(container, key, options);
      const pieces: Buffer[] = [];
      for await (const piece of body) pieces.push(piece);
      const bytes = Buffer.concat(pieces);
      expect(bytes.length).toBe(sizeBytes);
      return bytes;
    };
    const listed = async (container: string, prefix: string): Promise<Map<string, number>> => {
      const found = new Map<string, number>();
      for (const { key, sizeBytes } of await listedObjects(store, container, prefix)) {
        expect(found.has(key), `${key} listed twice`).toBe(false);
        found.set(key, sizeBytes ?? (await read(container, key)).length);
      }
      return found;
    };

    describe('put and get', () => {
      for (const size of [0, 1, 32768, MiB + 7, 3 * MiB + 13]) {
        test(`give back an object of ${size} bytes as it was`, async () => {
          const container = await freshContainer();
          const key = `${freshPrefix()}-00001`;
          const bytes = patternBytes(size, size + 1);
          await store.put(container, key, bytes, options);
          expect((await read(container, key)).equals(bytes)).toBe(true);
        });
      }

      test('replace an earlier object of the same key, also by a shorter one', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}-00001`;
        await store.put(container, key, patternBytes(70_000, 1), options);
        await store.put(container, key, patternBytes(10_000, 2), options);
        expect((await read(container, key)).equals(patternBytes(10_000, 2))).toBe(true);
      });

      test('say object-missing for an absent object and for one of an absent container', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}-00001`;
        await expectCode('object-missing', () => store.get(container, key, options));
        const absent = made.freshContainer();
        await expectCode('object-missing', () => store.get(absent, key, options));
      });

      test('work side by side on many keys', async () => {
        const container = await freshContainer();
        const prefix = freshPrefix();
        const numbers = Array.from({ length: 40 }, (_, at) => at + 1);
        await Promise.all(
          numbers.map((n) => store.put(container, `${prefix}-${n}`, patternBytes(8192 + n, n), options)),
        );
        const same = await Promise.all(
          numbers.map(async (n) =>
            (await read(container, `${prefix}-${n}`)).equals(patternBytes(8192 + n, n)),
          ),
        );
        expect(same).not.toContain(false);
      });

      test('never show a part of an object while it is being replaced', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}-00001`;
        const generations = [1, 2, 3, 4, 5, 6];
        const versions = generations.map((n) => patternBytes(200_000 + n * 1000, n));
        const isWhole = (bytes: Buffer) => versions.some((version) => version.equals(bytes));
        await store.put(container, key, patternBytes(201_000, 1), options);
        const writes = Promise.allSettled(
          versions.map((version) => store.put(container, key, version, options)),
        );
        const reads = generations.map(async () => {
          try {
            return isWhole(await read(container, key));
          } catch (error) {
            // Swift looks for the file of an object and opens it: one that was replaced between the two is absent to it.
            if (isBackupError(error, 'object-missing')) return true;
            throw error;
          }
        });
        expect(await Promise.all(reads)).not.toContain(false);
        // Swift may tell all but the last that somebody else has overtaken them.
        for (const outcome of await writes) {
          if (outcome.status === 'rejected')
            expect(outcome.reason).toMatchObject({ code: 'store-unavailable' });
        }
        expect(isWhole(await read(container, key))).toBe(true);
      });

      test('let a reader leave early and others go on', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}-00001`;
        const bytes = patternBytes(6 * MiB, 9);
        await store.put(container, key, bytes, options);
        for (let round = 0; round < 8; round += 1) {
          const { body } = await store.get(container, key, options);
          for await (const piece of body) {
            expect(piece.equals(bytes.subarray(0, piece.length))).toBe(true);
            break;
          }
        }
        expect((await read(container, key)).equals(bytes)).toBe(true);
      });
    });

    describe('putStream', () => {
      test('stores what the body yields, piece by piece, from a recycled buffer', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}_sha256file`;
        const bytes = patternBytes(11 * MiB + 5, 3);
        await store.putStream(container, key, inRecycledPieces(bytes, 300_000), options);
        expect((await read(container, key)).equals(bytes)).toBe(true);
        expect((await listed(container, key)).get(key)).toBe(bytes.length);
      });

      test('stores an empty body as an empty object', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}_sha256file`;
        await store.putStream(container, key, inRecycledPieces(Buffer.alloc(0), 8), options);
        expect((await read(container, key)).length).toBe(0);
      });

      for (const before of [100, 7 * MiB]) {
        test(`leaves no trace if the body throws after ${before} bytes, and throws that error`, async () => {
          const container = await freshContainer();
          const key = `${freshPrefix()}_sha256file`;
          const failure = new BackupError('corrupt', 'the body failed');
          async function* failing(): AsyncGenerator<Buffer> {
            yield* inRecycledPieces(patternBytes(before, 4), MiB);
            throw failure;
          }
          await expect(store.putStream(container, key, failing(), options)).rejects.toBe(failure);
          expect((await listed(container, '')).size).toBe(0);
          await expectCode('object-missing', () => store.get(container, key, options));
        });
      }

      test('keeps the earlier object if the body throws', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}_metadata`;
        const bytes = patternBytes(5000, 5);
        await store.put(container, key, bytes, options);
        const failure = new Error('the body failed');
        async function* failing(): AsyncGenerator<Buffer> {
          yield patternBytes(3000, 6);
          throw failure;
        }
        await expect(store.putStream(container, key, failing(), options)).rejects.toBe(failure);
        expect((await read(container, key)).equals(bytes)).toBe(true);
      });

      test('stops without a trace when its signal aborts', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}_sha256file`;
        const controller = new AbortController();
        async function* body(): AsyncGenerator<Buffer> {
          yield patternBytes(MiB, 7);
          controller.abort(new Error('enough'));
          yield patternBytes(MiB, 8);
          yield patternBytes(MiB, 9);
        }
        await expectCode('cancelled', () =>
          store.putStream(container, key, body(), { signal: controller.signal }),
        );
        expect((await listed(container, '')).size).toBe(0);
      });
    });

    describe('list', () => {
      test('gives every object of the prefix with its size, however many, and no other', async () => {
        const container = await freshContainer();
        const prefix = freshPrefix();
        const other = freshPrefix();
        const count = made.listedObjects ?? 1100;
        const wanted = new Map<string, number>();
        for (let n = 1; n <= count; n += 1) {
          wanted.set(`${prefix}-${String(n).padStart(5, '0')}`, 1 + (n % 17));
        }
        const waiting = [...wanted];
        const putNext = async (): Promise<void> => {
          for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
            await store.put(container, next[0], patternBytes(next[1], 1), options);
          }
        };
        await Promise.all([
          ...Array.from({ length: 12 }, putNext),
          store.put(container, `${other}-00001`, patternBytes(3, 1), options),
        ]);
        await store.put(container, `${prefix}_metadata`, patternBytes(9, 2), options);
        wanted.set(`${prefix}_metadata`, 9);
        expect(await listed(container, prefix)).toEqual(wanted);
        expect([...(await listed(container, other)).keys()]).toEqual([`${other}-00001`]);
        expect((await listed(container, '')).size).toBe(wanted.size + 1);
      });

      test('is empty for an absent container and for a prefix that nothing has', async () => {
        const container = await freshContainer();
        expect((await listed(made.freshContainer(), '')).size).toBe(0);
        await store.put(container, `${freshPrefix()}-00001`, patternBytes(5, 1), options);
        expect((await listed(container, freshPrefix())).size).toBe(0);
      });
    });

    describe('remove', () => {
      test('removes one object and may be repeated', async () => {
        const container = await freshContainer();
        const prefix = freshPrefix();
        await store.put(container, `${prefix}-00001`, patternBytes(50, 1), options);
        await store.put(container, `${prefix}-00002`, patternBytes(60, 2), options);
        await store.remove(container, `${prefix}-00001`, live);
        await store.remove(container, `${prefix}-00001`, live);
        await expectCode('object-missing', () => store.get(container, `${prefix}-00001`, options));
        expect([...(await listed(container, prefix)).keys()]).toEqual([`${prefix}-00002`]);
      });

      test('succeeds for an absent container', async () => {
        const absent = made.freshContainer();
        await store.remove(absent, `${freshPrefix()}-00001`, live);
        await store.removeContainer(absent, live);
      });

      test('of a container leaves one that still holds objects alone', async () => {
        const container = await freshContainer();
        const key = `${freshPrefix()}-00001`;
        await store.put(container, key, patternBytes(77, 1), options);
        await store.removeContainer(container, live);
        expect((await read(container, key)).equals(patternBytes(77, 1))).toBe(true);
        await store.remove(container, key, live);
        await store.removeContainer(container, live);
        await store.removeContainer(container, live);
        expect((await listed(container, '')).size).toBe(0);
      });
    });

    test('a container may be ensured again without losing what it holds', async () => {
      const container = await freshContainer();
      const key = `${freshPrefix()}-00001`;
      await store.put(container, key, patternBytes(99, 1), options);
      await store.ensureContainer(container, live);
      expect((await read(container, key)).equals(patternBytes(99, 1))).toBe(true);
    });

    test('flush may be called with nothing to do, after puts, and twice', async () => {
      const container = await freshContainer();
      await store.flush(container, '', live);
      const key = `${freshPrefix()}-00001`;
      await store.put(container, key, patternBytes(40_000, 1), options);
      await Promise.all([store.flush(container, '', live), store.flush(container, '', live)]);
      expect((await read(container, key)).equals(patternBytes(40_000, 1))).toBe(true);
    });

    test('a key or container that could lead elsewhere is message-invalid everywhere', async () => {
      const container = await freshContainer();
      const good = `${freshPrefix()}-00001`;
      const hostile = ['', '.', '..', '../outside', 'a/../../outside', '/absolute', 'a//b', 'a\0b', 'a/.'];
      for (const bad of hostile) {
        await expectCode('message-invalid', () => store.put(container, bad, patternBytes(5, 1), options));
        await expectCode('message-invalid', () =>
          store.putStream(container, bad, inRecycledPieces(patternBytes(5, 1), 5), options),
        );
        await expectCode('message-invalid', () => store.get(container, bad, options));
        await expectCode('message-invalid', () => store.remove(container, bad, live));
        await expectCode('message-invalid', () => store.ensureContainer(bad, live));
        await expectCode('message-invalid', () => store.put(bad, good, patternBytes(5, 1), options));
        await expectCode('message-invalid', () => store.get(bad, good, options));
        await expectCode('message-invalid', () => store.remove(bad, good, live));
        await expectCode('message-invalid', () => store.removeContainer(bad, live));
        await expectCode('message-invalid', () => listed(bad, ''));
      }
      expect((await listed(container, '')).size).toBe(0);
    });

    test('a call whose signal has aborted is cancelled and does nothing', async () => {
      const container = await freshContainer();
      const key = `${freshPrefix()}-00001`;
      await store.put(container, key, patternBytes(88, 1), options);
      const signal = AbortSignal.abort(new Error('stopped before'));
      const aborted = { signal };
      await expectCode('cancelled', () => store.put(container, `${key}1`, patternBytes(5, 1), aborted));
      await expectCode('cancelled', () =>
        store.putStream(container, `${key}2`, inRecycledPieces(patternBytes(5, 1), 5), aborted),
      );
      await expectCode('cancelled', () => store.get(container, key, aborted));
      await expectCode('cancelled', () => store.remove(container, key, signal));
      await expectCode('cancelled', () => store.ensureContainer(made.freshContainer(), signal));
      await expectCode('cancelled', () => store.flush(container, '', signal));
      await expectCode('cancelled', async () => {
        for await (const page of store.list(container, '', signal)) expect(page).toBeUndefined();
      });
      expect([...(await listed(container, '')).keys()]).toEqual([key]);
    });

    test('a get whose signal aborts midway ends as cancelled', async () => {
      const container = await freshContainer();
      const key = `${freshPrefix()}-00001`;
      await store.put(container, key, patternBytes(80 * MiB, 1), options);
      const controller = new AbortController();
      await expectCode('cancelled', async () => {
        const { body } = await store.get(container, key, { signal: controller.signal });
        for await (const piece of body) {
          expect(piece.length).toBeGreaterThan(0);
          controller.abort(new Error('enough'));
        }
      });
    });
  });
}

async function expectCode(code: ErrorCode, call: () => Promise<unknown>): Promise<void> {
  const outcome = await call().then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  expect(outcome).toHaveProperty('error');
  const error = 'error' in outcome ? outcome.error : undefined;
  expect(error).toBeInstanceOf(BackupError);
  expect(error).toMatchObject({ code });
}
