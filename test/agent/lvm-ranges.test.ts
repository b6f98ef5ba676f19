import { readdirSync, readlinkSync, writeSync } from 'node:fs';
import { expect, test, vi } from 'vitest';
import { createBudget } from '../../src/async/limit.ts';
import { createLogger } from '../../src/log.ts';
import type { LogicalVolume } from '../../src/agent/lvm-report.ts';
import { findLvmRanges, type ThinMetadata } from '../../src/agent/lvm-ranges.ts';
import type { FindRequest } from '../../src/agent/volume-backend.ts';

const block = 65_536;
const log = createLogger({ level: 'silent' });

const logical = (name: string, thinId: number | null, sizeBytes: number): LogicalVolume => ({
  name,
  uuid: name,
  groupUuid: 'g',
  sizeBytes,
  segmentType: thinId === null ? 'thin-pool' : 'thin',
  pool: thinId === null ? null : 'pool',
  thinId,
  origin: null,
  tags: [],
  createdAtMs: 0,
  chunkBytes: block,
  zeroes: true,
  path: `/dev/mapper/vg-${name}`,
});
const thin = (name: string, thinId: number, sizeBytes: number) => ({
  ...logical(name, thinId, sizeBytes),
  thinId,
});

const header = '<superblock uuid="" data_block_size="128" nr_data_blocks="0">';
const changed = (...lines: readonly string[]) =>
  [header, '<diff left="1" right="2">', ...lines, '</diff>', '</superblock>', ''].join('\n');
const mapped = (...lines: readonly string[]) =>
  [header, '<device dev_id="2">', ...lines, '</device>', '</superblock>', ''].join('\n');

type Holder = 'nobody' | 'a dead one' | 'a dead one that had just begun' | 'another';

/**
 * A pool whose tools write these texts; what is done to it in order. `reserved`: who holds its metadata at first; `stolen`: another
 * program takes them while they are read.
 */
function poolOf(
  texts: { differences?: string | Error; mapped?: string },
  { reserved = 'nobody', stolen = false }: { reserved?: Holder; stolen?: boolean } = {},
) {
  const done: string[] = [];
  let held = reserved === 'nobody' ? null : '10';
  let mark =
    reserved === 'a dead one' ? '10' : reserved === 'a dead one that had just begun' ? 'pending' : null;
  const write = (what: string, fd: number, text: string | Error = '') => {
    done.push(what);
    if (stolen) held = '12';
    if (text instanceof Error) throw text;
    writeSync(fd, text);
    return Promise.resolve();
  };
  const group: ThinMetadata = {
    heldMetadata: () => Promise.resolve(held),
    keepMetadata() {
      if (held !== null) return Promise.resolve(false);
      held = '11';
      done.push('keep');
      return Promise.resolve(true);
    },
    dropMetadata() {
      held = null;
      done.push('drop');
      return Promise.resolve();
    },
    writeDifferences: async (_, ids, { fd }) =>
      await write(`differences ${ids.join(' ')}`, fd, texts.differences),
    writeMapped: async (_, id, { fd }) => await write(`mapped ${id}`, fd, texts.mapped),
  };
  const reservation = {
    read: () => Promise.resolve(mark),
    write(text: string) {
      mark = text;
      return Promise.resolve();
    },
    clear() {
      mark = null;
      return Promise.resolve();
    },
  };
  return { group, reservation, done, held: () => held, mark: () => mark };
}

const lock = createBudget(1);

/** Files of mappings that are open in this process. */
function openMappings(): readonly string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)].filter((path) => path.includes('/mappings'));
    } catch {
      return [];
    }
  });
}

type Asked = { previousBlocks?: number | null; blocks: number } & Partial<FindRequest>;

async function findIn(
  { group, reservation }: Pick<ReturnType<typeof poolOf>, 'group' | 'reservation'>,
  { previousBlocks = null, blocks, ...request }: Asked,
  confirm: () => Promise<void> = async () => {},
) {
  const lengthBytes = blocks * block;
  return await findLvmRanges({
    group,
    reservation,
    pool: logical('pool', null, 0),
    previous: previousBlocks === null ? null : thin('before', 1, previousBlocks * block),
    current: thin('now', 2, lengthBytes),
    lock,
    confirm,
    log,
    request: {
      volume: 'volume',
      previous: previousBlocks === null ? null : 'before',
      previousIdentity: null,
      current: 'now',
      lengthBytes,
      blockSize: 32_768,
      startOffset: 0,
      signal: new AbortController().signal,
      ...request,
    },
  });
}

async function find(pool: ReturnType<typeof poolOf>, asked: Asked, confirm?: () => Promise<void>) {
  const found = await findIn(pool, asked, confirm);
  const extents = [];
  for await (const { kind, offset, length } of found.extents) {
    extents.push([kind, offset / block, length / block]);
  }
  await found.close();
  return { method: found.method, extents };
}

test('what changed between two snapshots is told by the pool, clipped to what is asked for', async () => {
  const pool = poolOf({
    differences: changed(
      '<different begin="0" length="4"/>',
      '<left_only begin="6" length="1"/>',
      '<right_only begin="9" length="3"/>',
    ),
  });
  expect(await find(pool, { previousBlocks: 10, blocks: 10, startOffset: 2 * block })).toEqual({
    method: 'extents',
    extents: [
      ['data', 2, 2],
      ['zero', 6, 1],
      ['data', 9, 1],
    ],
  });
  expect(pool.done).toEqual(['keep', 'differences 1 2', 'drop']);
});

test('a whole snapshot is tiled with its blocks and zeros', async () => {
  const one = '<single_mapping origin_block="3" data_block="0" time="0"/>';
  const many = '<range_mapping origin_begin="5" data_begin="1" length="5" time="0"/>';
  const pool = poolOf({ mapped: mapped(one, many) });
  expect((await find(pool, { blocks: 8 })).extents).toEqual([
    ['zero', 0, 3],
    ['data', 3, 1],
    ['zero', 4, 1],
    ['data', 5, 3],
  ]);
  expect((await find(poolOf({ mapped: mapped() }), { blocks: 8 })).extents).toEqual([['zero', 0, 8]]);
});

test('what is behind the end of the previous snapshot is tiled', async () => {
  const pool = poolOf({
    differences: changed('<different begin="1" length="1"/>', '<right_only begin="4" length="9"/>'),
    mapped: mapped(
      '<range_mapping origin_begin="1" data_begin="1" length="1" time="0"/>',
      '<range_mapping origin_begin="4" data_begin="1" length="2" time="0"/>',
    ),
  });
  expect((await find(pool, { previousBlocks: 3, blocks: 8 })).extents).toEqual([
    ['data', 1, 1],
    ['zero', 3, 1],
    ['data', 4, 2],
    ['zero', 6, 2],
  ]);
  expect(pool.done).toEqual(['keep', 'differences 1 2', 'mapped 2', 'drop']);
});

test.each(['a dead one', 'a dead one that had just begun'] as const)(
  'metadata that %s left reserved are released',
  async (reserved) => {
    const pool = poolOf({ differences: changed() }, { reserved });
    expect((await find(pool, { previousBlocks: 1, blocks: 1 })).extents).toEqual([]);
    expect(pool.done).toEqual(['drop', 'keep', 'differences 1 2', 'drop']);
    expect([pool.held(), pool.mark()]).toEqual([null, null]);
  },
);

test('metadata that another program holds are left to it', async () => {
  const pool = poolOf({ differences: changed() }, { reserved: 'another' });
  await expect(find(pool, { previousBlocks: 1, blocks: 1 })).rejects.toMatchObject({
    code: 'busy',
    message: expect.stringContaining('release_metadata_snap'),
  });
  expect(pool.done).toEqual([]);
  expect(pool.held()).toBe('10');
});

test('what was read is not believed if another program took the metadata meanwhile', async () => {
  const pool = poolOf({ differences: changed() }, { stolen: true });
  await expect(find(pool, { previousBlocks: 1, blocks: 1 })).rejects.toMatchObject({ code: 'busy' });
  expect([pool.held(), pool.mark()]).toEqual(['12', null]);
});

test.each([
  ['a tool that fails', { differences: new Error('thin_delta') }, async () => {}],
  ['a tool whose output ends early', { differences: changed().slice(0, -20) }, async () => {}],
  ['a snapshot that is gone', { differences: changed() }, () => Promise.reject(new Error('gone'))],
] as const)(
  '%s fails the finding, and leaves neither metadata nor a file open',
  async (_, texts, confirm) => {
    const pool = poolOf(texts);
    await expect(find(pool, { previousBlocks: 1, blocks: 1 }, confirm)).rejects.toThrow();
    expect(pool.done.at(-1)).toBe('drop');
    expect([lock.held, pool.held(), pool.mark()]).toEqual([0, null, null]);
    expect(openMappings()).toEqual([]);
  },
);

test('finding that takes long goes on behind the answer, and ends when nobody wants it', async () => {
  vi.useFakeTimers();
  try {
    const slow = poolOf({ differences: changed('<different begin="0" length="1"/>') });
    const { promise: told, resolve: tell } = Promise.withResolvers<void>();
    const inner = slow.group.writeDifferences;
    const group: ThinMetadata = {
      ...slow.group,
      async writeDifferences(...args) {
        await told;
        await inner(...args);
      },
    };
    const found = findIn({ ...slow, group }, { previousBlocks: 1, blocks: 1 });
    await vi.advanceTimersByTimeAsync(6000);
    const { extents } = await found;
    expect(Array.isArray(extents)).toBe(false);
    tell();
    const all = [];
    for await (const extent of extents) all.push(extent);
    expect(all).toEqual([{ kind: 'data', offset: 0, length: block }]);
    await (await found).close();

    const unwanted = poolOf({});
    const hanging: ThinMetadata = {
      ...unwanted.group,
      writeDifferences: (_pool, _ids, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(new Error('stopped')));
        }),
    };
    const late = findIn({ ...unwanted, group: hanging }, { previousBlocks: 1, blocks: 1 });
    await vi.advanceTimersByTimeAsync(6000);
    await (await late).close();
    expect([lock.held, unwanted.held(), unwanted.mark()]).toEqual([0, null, null]);
    expect(openMappings()).toEqual([]);
  } finally {
    vi.useRealTimers();
  }
});

test('who is told to stop before reserves nothing', async () => {
  const pool = poolOf({ differences: changed() });
  const signal = AbortSignal.abort(new Error('enough'));
  await expect(find(pool, { previousBlocks: 1, blocks: 1, signal })).rejects.toMatchObject({
    code: 'cancelled',
  });
  expect(pool.done).toEqual([]);
});
