/** The main thread's half of unseal-pieces.ts: feeds stored bytes in, takes checked bytes out. */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { createQueue } from '../async/queue.ts';
import { cancelledBy } from '../model/errors.ts';
import type { SealThreads } from './seal-threads.ts';
import type { ObjectFault, UnsealStreamJob } from './sealer.ts';
import { cutCells, type Cells, type FromWorker, type ToWorker } from './unseal-pieces.ts';

/** Runs one session. Throws what reading, taking, or the signal throws, after the thread has let go of the slab. */
export async function unsealInPieces(
  threads: SealThreads,
  job: UnsealStreamJob,
): Promise<readonly ObjectFault[]> {
  const { port1: port, port2 } = new MessageChannel();
  const { codec, length, md5, blockSize, segments, digests, slab } = job;
  const cells = cutCells(slab.byteLength, blockSize);
  const free = createQueue<number>(cells.inCells);
  const filled = createQueue<Extract<FromWorker, { kind: 'bytes' }>>(cells.outCells);
  for (let cell = 0; cell < cells.inCells; cell += 1) await free.push(cell);
  port.on('message', (message: FromWorker) => {
    // The answer of the thread travels on another port and may overtake these.
    if (message.kind === 'end') {
      filled.end();
      return;
    }
    const moved = message.kind === 'used' ? free.push(message.cell) : filled.push(message);
    moved.catch(() => undefined);
  });

  const failures: unknown[] = [];
  const fail = (reason: unknown) => {
    failures.push(reason);
    free.fail(reason);
    filled.fail(reason);
    send(port, { kind: 'abort' });
  };
  const abort = () => fail(cancelledBy(job.signal));
  job.signal.addEventListener('abort', abort, { once: true });
  if (job.signal.aborted) abort();

  const feeding = feed(job, cells, free[Symbol.asyncIterator](), port).catch(fail);
  const taking = take(job, cells, filled, port).catch(fail);
  const deliver = job.take !== null;
  try {
    const faults = await threads.run(
      {
        kind: 'pieces',
        job: { codec, length, md5, blockSize, segments, digests, slab, port: port2, deliver },
      },
      [port2],
    );
    await taking;
    if (failures.length > 0) throw failures[0];
    return faults;
  } catch (error) {
    fail(error);
    throw failures[0];
  } finally {
    job.signal.removeEventListener('abort', abort);
    free.fail(new Error('the object is done'));
    await Promise.all([feeding, taking]);
    port.close();
  }
}

async function feed(
  job: UnsealStreamJob,
  cells: Cells,
  free: AsyncIterator<number>,
  port: MessagePort,
): Promise<void> {
  for await (const piece of job.pieces) {
    for (let at = 0; at < piece.length; at += cells.inBytes) {
      const cell = await free.next();
      if (cell.done === true) return;
      const part = piece.subarray(at, at + cells.inBytes);
      part.copy(Buffer.from(job.slab, cell.value * cells.inBytes, part.length));
      send(port, { kind: 'piece', cell: cell.value, length: part.length });
    }
  }
  send(port, { kind: 'end' });
}

async function take(
  job: UnsealStreamJob,
  cells: Cells,
  filled: AsyncIterable<Extract<FromWorker, { kind: 'bytes' }>>,
  port: MessagePort,
): Promise<void> {
  for await (const { cell, offset, length } of filled) {
    const bytes = Buffer.from(job.slab, cells.outStart + cell * cells.outBytes, length);
    await job.take?.(offset, bytes);
    send(port, { kind: 'taken', cell });
  }
}

function send(port: MessagePort, message: ToWorker): void {
  port.postMessage(message);
}
