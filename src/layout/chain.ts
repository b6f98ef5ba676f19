/**
 * A chain of backups, full backup first: whether its layers belong together, and which part of which object
 * holds each byte of the volume. Newest wins: an increment's object hides what lies under it, zeros included.
 */
import { BackupError } from '../model/errors.ts';
import { endOf, type Extent } from '../model/extent.ts';
import type { MetadataDocument, ObjectEntry } from './metadata-document.ts';

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
export function requireChainOrder(layers: readonly MetadataDocument[]): void {
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
export function chainLengthBytes(layers: readonly MetadataDocument[]): number {
  const recorded = layers.at(-1)?.delta?.lengthBytes;
  if (recorded !== undefined) return recorded;
  let length = 0;
  for (const layer of layers) {
    length = Math.max(length, layer.delta?.lengthBytes ?? 0);
    for (const entry of layer.objects) length = Math.max(length, endOf(entry));
  }
  return length;
}

/**
 * Plans the restore of [0, lengthBytes). Throws `corrupt` for an object that reaches past the end or does not lie on
 * blocks of `blockSize`, `chain-broken` for a range that no object holds. Takes O(n log n) for n objects in all layers
 * and about 40 bytes of memory for each object and segment.
 */
export function planRestore(
  layers: readonly MetadataDocument[],
  lengthBytes: number,
  blockSize: number,
): RestorePlan {
  const objects = sortObjects(layers, lengthBytes, blockSize);
  const segments = sweep(objects, lengthBytes, blockSize);
  return groupByObject(objects, segments);
}

/** All objects of the chain by offset. The rank orders them by what they hide: a higher rank is newer. */
type SortedObjects = { readonly entries: readonly ObjectEntry[]; readonly layers: Uint16Array };

function sortObjects(
  layers: readonly MetadataDocument[],
  lengthBytes: number,
  blockSize: number,
): SortedObjects {
  const count = layers.reduce((sum, layer) => sum + layer.objects.length, 0);
  const entries: ObjectEntry[] = [];
  const layerOf = new Uint16Array(count);
  const cursors = layers.map(() => 0);
  const nextOffset = (layer: number): number =>
    layers[layer]?.objects[cursors[layer] ?? 0]?.offset ?? Number.POSITIVE_INFINITY;
  const heap = createHeap(layers.length, (a, b) => nextOffset(a) < nextOffset(b));
  for (const layer of layers.keys()) heap.push(layer);

  for (let layer = heap.top; layer !== undefined; layer = heap.top) {
    const at = cursors[layer] ?? 0;
    const entry = layers[layer]?.objects[at];
    heap.pop();
    if (entry === undefined) continue;
    const previous = layers[layer]?.objects[at - 1];
    if (previous !== undefined && previous.offset > entry.offset) {
      throw new BackupError('bug', `broken invariant: objects of layer ${layer} are not sorted by offset`);
    }
    requirePlace(entry, lengthBytes, blockSize);
    layerOf[entries.length] = layer;
    entries.push(entry);
    cursors[layer] = at + 1;
    heap.push(layer);
  }
  return { entries, layers: layerOf };
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

/**
 * Walks over the volume. `active` holds the objects that began at or before the position, the one that hides
 * the others on top; those that have ended are dropped when they come up.
 */
function sweep({ entries, layers }: SortedObjects, lengthBytes: number, blockSize: number): Segments {
  const hides = (a: number, b: number): boolean => {
    const [newer, older] = [layers[a] ?? 0, layers[b] ?? 0];
    return newer === older ? comparesAfter(entries[a], entries[b]) : newer > older;
  };
  const active = createHeap(entries.length, hides);
  const starts = new Float64Array(2 * entries.length + 1);
  const owners = new Uint32Array(2 * entries.length);
  let count = 0;
  let next = 0;

  for (let position = 0; position < lengthBytes;) {
    for (; (entries[next]?.offset ?? Number.POSITIVE_INFINITY) <= position; next += 1) active.push(next);
    let owner = active.top;
    while (owner !== undefined && endOfMaybe(entries[owner]) <= position) {
      active.pop();
      owner = active.top;
    }
    const nextStart = entries[next]?.offset ?? lengthBytes;
    if (owner === undefined) throw hole(position, nextStart);
    if (count === 0 || owners[count - 1] !== owner) {
      const hiding = entries[owners[count - 1] ?? 0];
      if (position % blockSize !== 0 && hiding !== undefined) {
        throw misplaced(
          hiding,
          `it ends inside a block of ${blockSize} bytes, and not at the end of the volume`,
        );
      }
      starts[count] = position;
      owners[count] = owner;
      count += 1;
    }
    position = Math.min(endOfMaybe(entries[owner]), nextStart);
  }
  starts[count] = lengthBytes;
  return { starts: starts.subarray(0, count + 1), owners: owners.subarray(0, count) };
}

/** Counting sort of the segments by object, kept in order of offset within each. */
function groupByObject({ entries, layers }: SortedObjects, { starts, owners }: Segments): RestorePlan {
  const ends = new Uint32Array(entries.length);
  for (const owner of owners) ends[owner] = (ends[owner] ?? 0) + 1;
  for (let at = 1; at < ends.length; at += 1) ends[at] = (ends[at] ?? 0) + (ends[at - 1] ?? 0);
  const order = new Uint32Array(owners.length);
  const firsts: number[] = [];
  const filled = new Uint32Array(entries.length);
  for (const [segment, owner] of owners.entries()) {
    const begin = owner === 0 ? 0 : (ends[owner - 1] ?? 0);
    order[begin + (filled[owner] ?? 0)] = segment;
    filled[owner] = (filled[owner] ?? 0) + 1;
    if (filled[owner] === 1) firsts.push(owner);
  }
  return {
    objectCount: firsts.length,
    segmentCount: owners.length,
    *[Symbol.iterator]() {
      for (const owner of firsts) {
        const entry = entries[owner];
        if (entry === undefined) continue;
        const own = order.subarray(owner === 0 ? 0 : ends[owner - 1], ends[owner]);
        const segments = Array.from(own, (segment) => {
          const offset = starts[segment] ?? 0;
          return { offset, length: (starts[segment + 1] ?? 0) - offset };
        });
        yield { layer: layers[owner] ?? 0, entry, segments };
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

function endOfMaybe(entry: ObjectEntry | undefined): number {
  return entry === undefined ? 0 : endOf(entry);
}

/** Within a layer Python restores in the order of names, so the later name wins; the longer name is the later. */
function comparesAfter(a: ObjectEntry | undefined, b: ObjectEntry | undefined): boolean {
  if (a === undefined || b === undefined) return false;
  return a.key.length === b.key.length ? a.key > b.key : a.key.length > b.key.length;
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
