/**
 * A chain of backups, full backup first: whether its layers belong together, and which part of which object
 * holds each byte of the volume. Newest wins: an increment's object hides what lies under it, zeros included.
 */
import { BackupError, invariant } from '../model/errors.ts';
import { endOf, type Extent } from '../model/extent.ts';
import type { BackupHead, DeltaRecord, ObjectEntry, ObjectList } from './metadata-document.ts';

/** An object that a restore needs, and the parts of the volume that it gives. */
export type PlannedObject = {
  /** Place in the chain, 0 for the full backup. */
  readonly layer: number;
  readonly entry: ObjectEntry;
  /** Sorted, not empty, inside the entry's extent; they overlap no segment of any object. */
  readonly segments: readonly Extent[];
};

/** Needed objects in the order of their first needed byte. Iterating it again starts anew. */
export type RestorePlan = Iterable<PlannedObject> & {
  readonly objectCount: number;
  readonly segmentCount: number;
};

/**
 * Throws `chain-broken` unless `layers` is a full backup and its increments, each the child of the one
 * before, all of one volume.
 */
export function requireChainOrder(
  layers: readonly Pick<BackupHead, 'backupId' | 'parentId' | 'volumeId'>[],
): void {
  const [full] = layers;
  if (full === undefined) throw broken('the chain is empty');
  if (full.parentId !== null) {
    throw broken(`backup ${full.backupId} is an increment of ${full.parentId}, which is not in the chain`);
  }
  for (const [at, layer] of layers.entries()) {
    const below = layers[at - 1];
    if (below === undefined) continue;
    if (layer.parentId !== below.backupId) {
      throw broken(
        `backup ${layer.backupId} is an increment of ${layer.parentId ?? 'nothing'}, not of ${below.backupId}`,
      );
    }
    if (layer.volumeId !== full.volumeId) {
      throw broken(`backup ${layer.backupId} is of volume ${layer.volumeId}, its parent of ${full.volumeId}`);
    }
  }
}

/**
 * Bytes of the volume at the time of the newest layer: as that recorded them, else the end of the chain's last byte
 * (Python records no length, and refuses to add to a chain when the volume has grown).
 */
export function chainLengthBytes(
  layers: readonly { readonly delta: DeltaRecord | null; readonly objects: Iterable<Extent> }[],
): number {
  const recorded = layers.at(-1)?.delta?.lengthBytes;
  if (recorded !== undefined) return recorded;
  let length = 0;
  for (const layer of layers) {
    length = Math.max(length, layer.delta?.lengthBytes ?? 0);
    for (const entry of layer.objects) length = Math.max(length, endOf(entry));
  }
  return length;
}

/** Memory for each object of a chain that is restored: its row (object-table.ts), its place in the order, two segments. */
export const bytesPerObject = 128;

type ObjectLists = readonly { readonly objects: ObjectList }[];

/** What becomes of a range that no object holds: `passed` over where layers are missing. */
export type Gaps = 'refused' | 'passed';

/**
 * Plans the restore of [0, lengthBytes). Throws `corrupt` for an object that reaches past the end or does not lie on
 * blocks of `blockSize`, `chain-broken` for a range that no object holds if gaps are refused. Takes O(n log n) for n objects in all layers
 * and about 80 bytes of memory for each object.
 */
export function planRestore(
  layers: ObjectLists,
  lengthBytes: number,
  blockSize: number,
  gaps: Gaps = 'refused',
): RestorePlan {
  const objects = sortObjects(layers, lengthBytes, blockSize);
  const segments = sweep(objects, lengthBytes, blockSize, gaps);
  return groupByObject(objects, segments);
}

/** All objects of the chain by offset, in columns; `entryOf` makes the object of a row. A higher layer is newer. */
type SortedObjects = {
  readonly count: number;
  readonly offsets: Float64Array;
  readonly ends: Float64Array;
  readonly layers: Uint16Array;
  /** The objects' own numbers: Python restores a layer in their order, so the higher wins. */
  readonly numbers: Float64Array;
  readonly entryOf: (row: number) => ObjectEntry;
};

function sortObjects(layers: ObjectLists, lengthBytes: number, blockSize: number): SortedObjects {
  const count = layers.reduce((sum, layer) => sum + layer.objects.length, 0);
  const offsets = new Float64Array(count);
  const ends = new Float64Array(count);
  const layerOf = new Uint16Array(count);
  const numbers = new Float64Array(count);
  const indexes = new Uint32Array(count);
  const cursors = new Uint32Array(layers.length);
  const heads = layers.map(({ objects }) => objects.at(0));
  const nextOffset = (layer: number): number => heads[layer]?.offset ?? Number.POSITIVE_INFINITY;
  const heap = createHeap(layers.length, (a, b) => nextOffset(a) < nextOffset(b));
  for (const layer of layers.keys()) heap.push(layer);

  let row = 0;
  for (let layer = heap.top; layer !== undefined; layer = heap.top) {
    const at = cursors[layer] ?? 0;
    const entry = heads[layer];
    heap.pop();
    if (entry === undefined) continue;
    requirePlace(entry, lengthBytes, blockSize);
    offsets[row] = entry.offset;
    ends[row] = endOf(entry);
    layerOf[row] = layer;
    numbers[row] = Number(entry.key.slice(entry.key.lastIndexOf('-') + 1));
    indexes[row] = at;
    row += 1;
    cursors[layer] = at + 1;
    heads[layer] = layers[layer]?.objects.at(at + 1);
    invariant(nextOffset(layer) >= entry.offset, `objects of layer ${layer} are not sorted by offset`);
    heap.push(layer);
  }
  return {
    count,
    offsets,
    ends,
    layers: layerOf,
    numbers,
    entryOf(wanted) {
      const entry = layers[layerOf[wanted] ?? 0]?.objects.at(indexes[wanted] ?? 0);
      invariant(entry !== undefined, `row ${wanted} of ${count} is no object`);
      return entry;
    },
  };
}

function requirePlace(entry: ObjectEntry, lengthBytes: number, blockSize: number): void {
  if (endOf(entry) > lengthBytes) {
    throw misplaced(entry, `it ends after the ${lengthBytes} bytes of the volume`);
  }
  if (entry.offset % blockSize !== 0) {
    throw misplaced(entry, `it does not begin on a block of ${blockSize} bytes`);
  }
}

/** Segments in order of offset: `starts` has one more item than `owners`, so that each ends where the next starts. */
type Segments = { readonly starts: Float64Array; readonly owners: Uint32Array };

/** The owner of a gap. */
const nobody = 0xffff_ffff;

/**
 * Walks over the volume. `active` holds the objects that began at or before the position, the one that hides
 * the others on top; those that have ended are dropped when they come up.
 */
function sweep(objects: SortedObjects, lengthBytes: number, blockSize: number, gaps: Gaps): Segments {
  const { count: rows, offsets, ends, layers, numbers, entryOf } = objects;
  const endAt = (row: number): number => ends[row] ?? 0;
  const hides = (a: number, b: number): boolean => {
    const [newer, older] = [layers[a] ?? 0, layers[b] ?? 0];
    return newer === older ? (numbers[a] ?? 0) > (numbers[b] ?? 0) : newer > older;
  };
  const active = createHeap(rows, hides);
  const most = gaps === 'refused' ? 2 * rows : 3 * rows + 1;
  const starts = new Float64Array(most + 1);
  const owners = new Uint32Array(most);
  let count = 0;
  let next = 0;

  for (let position = 0; position < lengthBytes;) {
    for (; (offsets[next] ?? Number.POSITIVE_INFINITY) <= position; next += 1) active.push(next);
    let owner = active.top;
    while (owner !== undefined && endAt(owner) <= position) {
      active.pop();
      owner = active.top;
    }
    const nextStart = offsets[next] ?? lengthBytes;
    if (owner === undefined && gaps === 'refused') throw hole(position, nextStart);
    const holder = owner ?? nobody;
    const hiding = count === 0 ? undefined : owners[count - 1];
    if (hiding !== holder) {
      if (position % blockSize !== 0 && hiding !== undefined) {
        throw misplaced(
          entryOf(hiding),
          `it ends inside a block of ${blockSize} bytes, and not at the end of the volume`,
        );
      }
      starts[count] = position;
      owners[count] = holder;
      count += 1;
    }
    position = owner === undefined ? nextStart : Math.min(endAt(owner), nextStart);
  }
  starts[count] = lengthBytes;
  return { starts: starts.subarray(0, count + 1), owners: owners.subarray(0, count) };
}

/** Counting sort of the segments by object, kept in order of offset within each. */
function groupByObject({ count, layers, entryOf }: SortedObjects, { starts, owners }: Segments): RestorePlan {
  const ends = new Uint32Array(count);
  for (const owner of owners) if (owner !== nobody) ends[owner] = (ends[owner] ?? 0) + 1;
  for (let at = 1; at < count; at += 1) ends[at] = (ends[at] ?? 0) + (ends[at - 1] ?? 0);
  const order = new Uint32Array(owners.length);
  const firsts = new Uint32Array(count);
  const filled = new Uint32Array(count);
  let objectCount = 0;
  for (const [segment, owner] of owners.entries()) {
    if (owner === nobody) continue;
    const begin = owner === 0 ? 0 : (ends[owner - 1] ?? 0);
    order[begin + (filled[owner] ?? 0)] = segment;
    filled[owner] = (filled[owner] ?? 0) + 1;
    if (filled[owner] !== 1) continue;
    firsts[objectCount] = owner;
    objectCount += 1;
  }
  return {
    objectCount,
    segmentCount: owners.length,
    *[Symbol.iterator]() {
      for (const owner of firsts.subarray(0, objectCount)) {
        const own = order.subarray(owner === 0 ? 0 : ends[owner - 1], ends[owner]);
        const segments = Array.from(own, (segment) => {
          const offset = starts[segment] ?? 0;
          return { offset, length: (starts[segment + 1] ?? 0) - offset };
        });
        yield { layer: layers[owner] ?? 0, entry: entryOf(owner), segments };
      }
    },
  };
}

type Heap = { readonly top: number | undefined; push(item: number): void; pop(): void };

/** A binary heap of numbers; `before(a, b)` says that `a` comes out first. */
function createHeap(capacity: number, before: (a: number, b: number) => boolean): Heap {
  const items = new Uint32Array(capacity);
  let size = 0;
  const at = (index: number): number => items[index] ?? 0;
  const swap = (a: number, b: number): void => {
    const held = at(a);
    items[a] = at(b);
    items[b] = held;
  };
  return {
    get top() {
      return size === 0 ? undefined : items[0];
    },
    push(item) {
      items[size] = item;
      size += 1;
      for (let child = size - 1; child > 0;) {
        const parent = (child - 1) >> 1;
        if (!before(at(child), at(parent))) return;
        swap(child, parent);
        child = parent;
      }
    },
    pop() {
      size -= 1;
      items[0] = at(size);
      for (let parent = 0; ;) {
        const left = 2 * parent + 1;
        if (left >= size) return;
        const child = left + 1 < size && before(at(left + 1), at(left)) ? left + 1 : left;
        if (!before(at(child), at(parent))) return;
        swap(parent, child);
        parent = child;
      }
    },
  };
}

function broken(what: string): BackupError {
  return new BackupError(
    'chain-broken',
    `${what}; choose a backup whose chain is whole, or do a full backup`,
  );
}

function hole(from: number, to: number): BackupError {
  return new BackupError(
    'chain-broken',
    `no object of the chain holds bytes ${from} to ${to - 1} of the volume: an object list is not whole; do a full backup`,
    { details: { offset: from, length: to - from } },
  );
}

function misplaced(entry: ObjectEntry, what: string): BackupError {
  return new BackupError(
    'corrupt',
    `object ${entry.key} holds ${entry.length} bytes from offset ${entry.offset}: ${what}; its backup's metadata was damaged, or the volume's size is wrong`,
    { details: { object: entry.key, offset: entry.offset, length: entry.length } },
  );
}
