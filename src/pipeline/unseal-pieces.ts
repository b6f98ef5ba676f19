/**
 * Unsealing inside a worker thread, piece by piece, for objects that are larger than a slab. The slab is cut into
 * cells: some carry stored bytes in, some carry checked volume bytes out. A cell belongs to the side that was last told of it.
 */
import { createHash } from 'node:crypto';
import type { MessagePort } from 'node:worker_threads';
import { createQueue } from '../async/queue.ts';
import { digestBytes } from '../model/digest.ts';
import { invariant } from '../model/errors.ts';
import { BodyFault, faults } from './codecs/body-codec.ts';
import type { BodyCodecs } from './codecs/open-codecs.ts';
import type { ObjectFault, UnsealStreamJob } from './sealer.ts';
import { differingBlocks, md5Fault } from './unseal-object.ts';

export type PiecesJob = Omit<UnsealStreamJob, 'pieces' | 'take' | 'signal'> & {
  readonly port: MessagePort;
  /** Send checked bytes out, and stop at the first fault. */
  readonly deliver: boolean;
};

/** To the worker: a filled cell, the end of the body, a cell that comes back empty, or the end of it all. */
export type ToWorker =
  | { readonly kind: 'piece'; readonly cell: number; readonly length: number }
  | { readonly kind: 'end' }
  | { readonly kind: 'taken'; readonly cell: number }
  | { readonly kind: 'abort' };

/** From the worker: a cell that comes back empty, one with checked bytes at `offset` of the object, or no more of either. */
export type FromWorker =
  | { readonly kind: 'end' }
  | { readonly kind: 'used'; readonly cell: number }
  | { readonly kind: 'bytes'; readonly cell: number; readonly offset: number; readonly length: number };

export type Cells = {
  readonly inCells: number;
  readonly inBytes: number;
  readonly outCells: number;
  readonly outBytes: number;
  readonly outStart: number;
};

const largestCell = 1024 * 1024;

/** How a slab is cut: half for each direction, up to four cells of at most 1 MiB (or one block, if that is larger). */
export function cutCells(slabBytes: number, blockSize: number): Cells {
  const half = Math.floor(slabBytes / 2);
  const outBytes = Math.max(blockSize, Math.floor(Math.min(largestCell, half / 4) / blockSize) * blockSize);
  const outCells = Math.max(1, Math.min(4, Math.floor(half / outBytes)));
  const inBytes = Math.min(largestCell, Math.floor((slabBytes - outCells * outBytes) / 4));
  invariant(inBytes > 0, `a slab of ${slabBytes} bytes has no room beside a block of ${blockSize}`);
  return { inCells: 4, inBytes, outCells, outBytes, outStart: slabBytes - outCells * outBytes };
}

class Aborted extends Error {}

/** Reads the body from the port, checks it, and delivers the bytes of the segments. Returns the faults. The other side closes. */
export async function unsealPieces(job: PiecesJob, codecs: BodyCodecs): Promise<ObjectFault[]> {
  const cells = cutCells(job.slab.byteLength, job.blockSize);
  const arrived = createQueue<{ readonly cell: number; readonly length: number }>(cells.inCells);
  const free = createQueue<number>(cells.outCells);
  const send = (message: FromWorker) => job.port.postMessage(message, []);
  for (let cell = 0; cell < cells.outCells; cell += 1) await free.push(cell);
  job.port.on('message', (message: ToWorker) => {
    if (message.kind === 'piece') void arrived.push(message).catch(() => undefined);
    else if (message.kind === 'taken') void free.push(message.cell).catch(() => undefined);
    else if (message.kind === 'end') arrived.end();
    else {
      arrived.fail(new Aborted());
      free.fail(new Aborted());
    }
  });
  const pieces = async function* () {
    for await (const { cell, length } of arrived) {
      yield Buffer.from(job.slab, cell * cells.inBytes, length);
      send({ kind: 'used', cell });
    }
  };
  try {
    const body = job.codec === 'none' ? pieces() : codecs[job.codec].decompressStream(pieces());
    return await checkBody(job, body, cells, free[Symbol.asyncIterator](), send);
  } catch (error) {
    if (error instanceof BodyFault) return [{ offset: 0, length: null, reason: error.message }];
    if (error instanceof Aborted) return [];
    throw error;
  } finally {
    send({ kind: 'end' });
  }
}

async function checkBody(
  job: PiecesJob,
  body: AsyncIterable<Buffer>,
  cells: Cells,
  free: AsyncIterator<number>,
  send: (message: FromWorker) => void,
): Promise<ObjectFault[]> {
  const md5 = createHash('md5');
  const found: ObjectFault[] = [];
  let position = 0;
  let index = 0;
  let digestAt = 0;
  let cell: { readonly number: number; readonly bytes: Buffer; offset: number; used: number } | null = null;

  const nextCell = async () => {
    const next = await free.next();
    if (next.done === true) throw new Aborted();
    const bytes = Buffer.from(job.slab, cells.outStart + next.value * cells.outBytes, cells.outBytes);
    return { number: next.value, bytes, offset: 0, used: 0 };
  };

  for await (const chunk of body) {
    if (position + chunk.length > job.length) throw faults.long(job.length);
    md5.update(chunk);
    for (let at = 0; at < chunk.length;) {
      const segment = job.segments[index];
      if (segment === undefined) break;
      const here = position + at;
      if (here < segment.offset) {
        at += Math.min(segment.offset - here, chunk.length - at);
        continue;
      }
      cell ??= await nextCell();
      if (cell.used === 0) cell.offset = here;
      const end = segment.offset + segment.length;
      const take = Math.min(end - here, chunk.length - at, cells.outBytes - cell.used);
      chunk.copy(cell.bytes, cell.used, at, at + take);
      cell.used += take;
      at += take;
      if (here + take === end) index += 1;
      else if (cell.used < cells.outBytes) continue;
      const filled = cell.bytes.subarray(0, cell.used);
      found.push(...differingBlocks(filled, job.digests.subarray(digestAt), job.blockSize, cell.offset));
      digestAt += Math.ceil(filled.length / job.blockSize) * digestBytes;
      if (job.deliver) {
        if (found.length > 0) return found;
        send({ kind: 'bytes', cell: cell.number, offset: cell.offset, length: cell.used });
        cell = null;
      } else cell.used = 0;
    }
    position += chunk.length;
  }
  if (position < job.length) throw faults.short(job.length, position);
  if (found.length > 0) return found;
  const digest = md5.digest('hex');
  return digest === job.md5 ? [] : [md5Fault(digest, job.md5)];
}
