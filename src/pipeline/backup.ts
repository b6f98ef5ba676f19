/**
 * The backup pipeline: the source's changes become objects, a hash list and a metadata document in the store.
 *
 *   source ─ changes ─> assembler ─ slabs ─> sealing threads ─ bodies ─> puts
 *      └──── digests ─> digest writer (over the parent's hash list) ─> _sha256file, then _metadata
 *
 * Entry: runBackup. All stages run at the same time; memory is bounded as memory.ts tells. Order on the store: objects,
 * flushed; then the end of the _sha256file, without which it does not appear; then the _metadata. On failure everything that
 * runs is stopped and waited for; objects that were put stay, and whoever called removes the prefix.
 */
import { digestBytes, zeroDigestRuns } from '../model/digest.ts';
import { BackupError, cancelledBy, throwIfAborted } from '../model/errors.ts';
import { blockCount } from '../model/extent.ts';
import { openSha256File, writeMetadata, type LayerHead } from '../layout/read-layer.ts';
import type { Sha256File } from '../layout/sha256-file.ts';
import type { ChangeEvent } from '../volume/block-source.ts';
import { createAssembler, type Assembler, type AssemblerSizes } from './assembler.ts';
import { compareChanges } from './compare.ts';
import { startDigestWriter, type DigestWriter } from './digest-writer.ts';
import type { BackupJob, BackupOutcome, Layer, PipelineResources } from './jobs.ts';
import { largestSlabBytes, memoryNeed, objectSizes } from './memory.ts';
import { createObjectSink, type ObjectSink } from './object-sink.ts';
import { openSlabs } from './slabs.ts';

/** Objects that each sealing thread should get, and the size below which sharing out more finely wins nothing. */
const objectsPerThread = 4;
const leastSharedBytes = 2 * 1024 * 1024;

/**
 * Runs a backup to its end; when it returns, the backup is whole on stable storage. Throws the first failure: `corrupt` if the
 * source's bytes and digests differ, `chain-broken` if the parent does not fit, `limit-exceeded`, `cancelled`, and what source
 * and store throw.
 */
export async function runBackup(resources: PipelineResources, job: BackupJob): Promise<BackupOutcome> {
  const { store, memory, sealer } = resources;
  const { source, codec, place, signal } = job;
  throwIfAborted(signal);
  const need = memoryNeed('backup', memory.capacity, {
    blockSize: source.blockSize,
    threads: sealer.threads,
    codec,
  });
  const uses = codec === 'none' ? (['volume'] as const) : (['volume', 'body'] as const);
  const slabs = await openSlabs(memory, sealer.shelf, need, uses, signal).catch((error: unknown) => {
    throw signal.aborted ? cancelledBy(signal) : error;
  });
  try {
    await store.ensureContainer(place.container, signal);
    const sink = createObjectSink(resources, job, slabs, signal);
    const readBytes = await transfer(resources, job, sink, need.objectBytes);
    const metadata = metadataOf(job, sink, readBytes);
    await writeMetadata(store, place, metadata, signal);
    return { objectCount: metadata.objects.length, storedBytes: sink.storedBytes, readBytes };
  } catch (error) {
    throw signal.aborted ? cancelledBy(signal) : error;
  } finally {
    slabs.close();
  }
}

/** Stores the objects and the hash list. Returns the bytes read at the source. */
async function transfer(
  { store, sealer }: PipelineResources,
  job: BackupJob,
  sink: ObjectSink,
  slabObjectBytes: number,
): Promise<number> {
  const { source, way } = job;
  const { blockSize } = source;
  const { signal } = sink;
  const assembler = createAssembler(sizesOf(job, slabObjectBytes), sink);
  // Before anything is asked of the source or the store: it may all be zeros.
  if (way.mode === 'full') assembler.requireRoom(0, source.lengthBytes);
  let writer: DigestWriter | null = null;
  let list: Sha256File | null = null;
  const stop = (reason: unknown) => {
    sink.cancel(reason);
    writer?.fail(reason);
  };
  const onAbort = () => stop(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    list = way.mode === 'full' ? null : await openParent(store, way.parent, job, signal);
    const parent = list?.digests ?? null;
    writer = startDigestWriter({
      store,
      place: job.place,
      head: job.head,
      blockSize,
      blocks: blockCount(source.lengthBytes, blockSize),
      parent: way.mode === 'delta' ? parent : null,
      signal,
    });
    writer.done.catch(stop);
    const reads = createReadCounter(job);
    const changes = changesOf(job, parent, reads, signal);
    await consume(job, changes, reads, assembler, writer, sealer.threads);
    await assembler.end();
    writer.end();
    await sink.settle();
    await store.flush(job.place.container, job.place.prefix, signal);
    writer.objectsStored();
    await writer.done;
    return reads.total;
  } catch (error) {
    stop(error);
    // The reason of the first failure: what came after it follows from it.
    throw signal.reason;
  } finally {
    signal.removeEventListener('abort', onAbort);
    assembler.abandon();
    await Promise.allSettled([sink.settle(), writer?.done]);
    await Promise.allSettled([list?.close()]);
  }
}

function sizesOf({ objectBytes, source, way }: BackupJob, slabBytes: number): AssemblerSizes {
  const { blockSize } = source;
  const { dataBytes, zeroBytes } = objectSizes(objectBytes, blockSize, slabBytes);
  const larger =
    dataBytes + blockSize <= largestSlabBytes
      ? `raise the object size and the memory ceiling, up to objects of ${largestSlabBytes} bytes`
      : 'back this volume up with cinder-backup, whose objects are larger';
  return {
    objectBytes: dataBytes,
    zeroObjectBytes: zeroBytes,
    slabBytes,
    blockSize,
    remedy: way.mode === 'full' ? larger : 'raise the gap that is merged, or do a full backup',
  };
}

/** The parent's hash list, which the caller closes. Throws `chain-broken` if its blocks are of another size, or the volume has shrunk. */
async function openParent(
  store: PipelineResources['store'],
  parent: LayerHead,
  { source }: BackupJob,
  signal: AbortSignal,
): Promise<Sha256File> {
  const { backupId, delta } = parent.metadata;
  if (delta !== null && delta.lengthBytes > source.lengthBytes) {
    throw new BackupError(
      'chain-broken',
      `the volume has ${source.lengthBytes} bytes, its parent backup ${backupId} has ${delta.lengthBytes}: do a full backup`,
    );
  }
  const file = await openSha256File(store, parent, signal);
  if (file.blockSize === source.blockSize) return file;
  await file.close();
  throw new BackupError(
    'chain-broken',
    `parent backup ${backupId} has blocks of ${file.blockSize} bytes, this one of ${source.blockSize}: do a full backup`,
  );
}

/** Bytes read at the source, of the operation and in its progress. */
type ReadCounter = { readonly total: number; add(bytes: number): void };

function createReadCounter({ progress }: BackupJob): ReadCounter {
  let total = 0;
  return {
    get total() {
      return total;
    },
    add(bytes) {
      total += bytes;
      progress.readBytes += bytes;
    },
  };
}

function changesOf(
  { source, way, mergeGapBytes = 0 }: BackupJob,
  parent: AsyncIterable<Buffer> | null,
  reads: ReadCounter,
  signal: AbortSignal,
): AsyncIterable<ChangeEvent> {
  if (way.mode === 'delta') return source.delta(way.previous, signal);
  if (parent === null) return source.delta(null, signal);
  return compareChanges(source, parent, mergeGapBytes, (bytes) => reads.add(bytes), signal);
}

/** Hands every change to the assembler and the digest writer. */
async function consume(
  job: BackupJob,
  changes: AsyncIterable<ChangeEvent>,
  reads: ReadCounter,
  assembler: Assembler,
  writer: DigestWriter,
  threads: number,
): Promise<void> {
  const { progress, way, source } = job;
  const { blockSize, lengthBytes } = source;
  const cutBlock = way.mode === 'delta' ? cutBlockOf(way.parent, job) : null;
  let cutBlockSeen = cutBlock === null;
  if (way.mode !== 'delta') progress.plannedBytes = lengthBytes;
  for await (const event of changes) {
    if (event.kind === 'plan') {
      const { data_bytes: data, zero_bytes: zero, method } = event.plan;
      if (way.mode === 'delta' && data !== null && zero !== null) progress.plannedBytes = data + zero;
      // Where allocation was not asked, what is planned as data may be zeros.
      if (data !== null && zero !== null && method !== 'all') assembler.requireRoom(data, zero);
      if (data !== null) assembler.limitData(sharedObjectBytes(data, blockSize, threads));
      continue;
    }
    if (event.kind === 'totals') {
      reads.add(Math.max(0, event.totals.read_bytes - reads.total));
      continue;
    }
    const { offset, length } = event;
    const firstBlock = offset / blockSize;
    if (cutBlock !== null && offset <= cutBlock && offset + length > cutBlock) cutBlockSeen = true;
    if (event.kind === 'zero') {
      let block = firstBlock;
      for (const digests of zeroDigestRuns(length, blockSize)) {
        await writer.push({ firstBlock: block, digests });
        block += digests.length / digestBytes;
      }
      await assembler.zero(offset, length);
      continue;
    }
    await writer.push({ firstBlock, digests: Buffer.from(event.digests) });
    if (event.kind === 'digests') {
      progress.doneBytes += length;
      continue;
    }
    reads.add(length);
    progress.sentBytes += length;
    await assembler.data(offset, event.bytes, event.digests);
  }
  if (cutBlockSeen) return;
  throw new BackupError(
    'corrupt',
    `the agent's changes leave out the block at offset ${cutBlock ?? 0}, which grew with the volume: check the agent's version, or do a full backup`,
  );
}

/** A size of objects by which little data still keeps all sealing threads busy until its end: a whole number of blocks. */
function sharedObjectBytes(dataBytes: number, blockSize: number, threads: number): number {
  const share = Math.max(leastSharedBytes, dataBytes / (threads * objectsPerThread));
  return Math.ceil(share / blockSize) * blockSize;
}

/** Where the parent's volume ended inside a block that is longer now: it must be among the changes. */
function cutBlockOf(parent: LayerHead, { source }: BackupJob): number | null {
  const before = parent.metadata.delta?.lengthBytes ?? 0;
  const rest = before % source.blockSize;
  return rest === 0 || before === source.lengthBytes ? null : before - rest;
}

function metadataOf(job: BackupJob, sink: ObjectSink, readBytes: number): Layer['metadata'] {
  const { source, way, base } = job;
  return {
    ...job.head,
    objects: sink.list(),
    volumeMeta: job.volumeMeta,
    extraMetadata: null,
    delta: {
      mode: way.mode,
      reason: way.reason,
      lengthBytes: source.lengthBytes,
      blockSize: source.blockSize,
      base,
      readBytes,
      storedBytes: sink.storedBytes,
    },
  };
}
