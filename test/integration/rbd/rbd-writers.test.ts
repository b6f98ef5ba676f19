/** Restores to images that somebody else has open. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createLogger } from '../../../src/log.ts';
import { volumeName } from '../../../src/model/names.ts';
import { startCeph, type CephCluster } from '../../support/ceph-cluster.ts';
import { patternBytes } from '../../support/random-volume.ts';
import { startRbdGuest, type RbdGuest } from '../../support/rbd-guest.ts';
import { createImage, openRbdBackend } from '../../support/rbd-volumes.ts';

const MiB = 1024 * 1024;
const log = createLogger({ level: 'silent' });

let cluster: CephCluster;
let guest: RbdGuest;
let volume: string;

beforeAll(async () => {
  cluster = await startCeph();
  guest = startRbdGuest(cluster);
});
afterAll(async () => {
  await guest[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});
beforeEach(async () => {
  volume = volumeName(randomUUID());
  await createImage(cluster, volume, 4 * MiB);
});

test('an image that a guest has open is not restored to, until the guest lets go', async () => {
  const backend = await openRbdBackend(cluster, { watchTimeoutS: 2 });
  await guest.ask({ do: 'write', name: volume, offset: 0, length: MiB, generation: 1 });
  await expect(backend.openTarget(volume)).rejects.toMatchObject({
    code: 'state-invalid',
    message: expect.stringMatching(
      new RegExp(`${volume} is not restored to while others have it open \\(.*:`),
    ),
  });
  // What was opened to look is closed behind the refusal.
  await expect.poll(() => guest.ask({ do: 'watchers', name: volume })).toBe(1);
  await guest.ask({ do: 'leave', name: volume });
  const target = await backend.openTarget(volume);
  await target.write(0, patternBytes(0, MiB, 2));
  await target.flush();
  await target.close();
  await backend.close();
});

test('a guest that lets go while a restore waits is waited for', async () => {
  const backend = await openRbdBackend(cluster);
  await guest.ask({ do: 'write', name: volume, offset: 0, length: MiB, generation: 1 });
  const opening = backend.openTarget(volume);
  await expect.poll(() => guest.ask({ do: 'watchers', name: volume }), { timeout: 20_000 }).toBe(2);
  await guest.ask({ do: 'leave', name: volume });
  await (await opening).close();
  await backend.close();
});

test('an image is restored to once at a time, also by two back ends of one agent on its pool', async () => {
  const restoring = new Set<string>();
  const one = await openRbdBackend(cluster, {}, log, restoring);
  const other = await openRbdBackend(cluster, {}, log, restoring);
  const target = await one.openTarget(volume);
  for (const backend of [one, other]) {
    await expect(backend.openTarget(volume)).rejects.toMatchObject({
      code: 'state-invalid',
      message: expect.stringMatching(/is being restored to/),
    });
  }
  await target.close();
  await (await other.openTarget(volume)).close();
  expect(restoring.size).toBe(0);
  await one.close();
  await other.close();
});

test('two agents do not restore to one image', async () => {
  const one = await openRbdBackend(cluster);
  const other = await openRbdBackend(cluster, { watchTimeoutS: 1 });
  const target = await one.openTarget(volume);
  await expect(other.openTarget(volume)).rejects.toMatchObject({
    code: 'state-invalid',
    message: expect.stringMatching(/others have it open/),
  });
  await target.close();
  await one.close();
  await other.close();
});
