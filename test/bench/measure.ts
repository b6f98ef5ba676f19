/** One measurement of each kind: our service over REST, Cinder's driver in its process, a plain read with SHA-256. */
import { execFile } from 'node:child_process';
import { hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Extent } from '../../src/model/extent.ts';
import { requireAvailable } from '../../src/main/rest-client.ts';
import { startCinderPeer, type PeerRequest, type PeerRow } from '../support/cinder-peer.ts';
import { peakResidentBytes, processTree, resetPeak } from '../support/process-memory.ts';
import type { ServiceProcess } from '../../src/main/service-process.ts';
import type { BenchPlace } from './bench-store.ts';

export type Measured = {
  readonly seconds: number;
  /** Peak resident bytes, of all processes of that side together. */
  readonly peakBytes: number;
};

export type MeasuredBackup = Measured & { readonly storedBytes: number; readonly readBytes: number };

const blockBytes = 32 * 1024;

/** Nobody pays for what another has left to be written. */
async function settleDisks(): Promise<void> {
  await promisify(execFile)('sync');
}

/** From just before the request until the service says `available`, and the peak of its processes meanwhile. */
async function measureService(
  service: ServiceProcess,
  work: () => Promise<string>,
): Promise<Measured & { id: string }> {
  await settleDisks();
  for (const pid of await processTree(service.pid)) await resetPeak(pid);
  const started = performance.now();
  const id = await work();
  requireAvailable(await service.client.settled(id));
  const seconds = (performance.now() - started) / 1000;
  let peakBytes = 0;
  for (const pid of await processTree(service.pid)) peakBytes += await peakResidentBytes(pid);
  return { id, seconds, peakBytes };
}

/** A backup by our service; `id` is the new backup's. */
export async function measureOurBackup(
  service: ServiceProcess,
  place: BenchPlace,
  volumeId: string,
  incremental: boolean,
): Promise<MeasuredBackup & { readonly id: string; readonly mode: string }> {
  const measured = await measureService(service, () =>
    service.client.createBackup({ volumeId, incremental }),
  );
  const operation = (await service.client.operations(measured.id))[0];
  const { container } = await service.client.backup(measured.id);
  return {
    ...measured,
    mode: operation?.mode ?? '?',
    readBytes: operation?.progress.read_bytes ?? Number.NaN,
    storedBytes: await place.storedBytes({ id: measured.id, container: container ?? null }),
  };
}

/** A restore by our service into an existing volume. */
export async function measureOurRestore(
  service: ServiceProcess,
  backupId: string,
  volumeId: string,
): Promise<Measured> {
  return await measureService(service, async () => {
    await service.client.restore(backupId, volumeId);
    return backupId;
  });
}

/** One operation of Cinder's driver, in a fresh process; the seconds are the driver's alone. */
export async function measureCinder(
  request: PeerRequest,
  place: BenchPlace,
): Promise<MeasuredBackup & { readonly row: PeerRow }> {
  const wanted = request.rows.find(({ id }) => id === request.backup_id);
  if (wanted === undefined) throw new Error(`no row of backup ${request.backup_id}`);
  await settleDisks();
  await using peer = startCinderPeer();
  const answer = await peer.perform(request);
  return {
    seconds: answer.seconds,
    peakBytes: answer.max_rss_bytes,
    storedBytes: await place.storedBytes(answer.row),
    readBytes: answer.bytes,
    row: { ...wanted, ...answer.row },
  };
}

/** Seconds to read the extents and to hash every 32 KiB of them, in one thread: what nobody can do without. */
export async function measurePlainRead(path: string, extents: readonly Extent[]): Promise<number> {
  const buffer = Buffer.allocUnsafeSlow(1024 * 1024);
  const file = await open(path, 'r');
  try {
    const started = performance.now();
    for (const { offset, length } of extents) {
      for (let done = 0; done < length; done += buffer.length) {
        const { bytesRead } = await file.read(
          buffer,
          0,
          Math.min(buffer.length, length - done),
          offset + done,
        );
        for (let at = 0; at < bytesRead; at += blockBytes) {
          hash('sha256', buffer.subarray(at, Math.min(at + blockBytes, bytesRead)), 'buffer');
        }
      }
    }
    return (performance.now() - started) / 1000;
  } finally {
    await file.close();
  }
}
