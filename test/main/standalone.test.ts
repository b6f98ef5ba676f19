import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createRestClient, requireAvailable } from '../../src/main/rest-client.ts';
import { agentRoom, createStandalone, type StandaloneOptions } from '../../src/main/standalone.ts';
import { patternBytes } from '../support/pattern.ts';

const log = createLogger({ level: 'silent' });
const signal = AbortSignal.timeout(120_000);
let stateDir: string;
beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), 'cinder-delta-standalone-'));
});
afterEach(() => rm(stateDir, { recursive: true }));

const start = (options: Partial<StandaloneOptions> = {}, port = 0) =>
  createStandalone({ stateDir, host: '127.0.0.1', port, options, log });

async function putVolume(generation: number): Promise<string> {
  const id = randomUUID();
  await writeFile(join(stateDir, 'volumes', `volume-${id}`), patternBytes(300_000, generation));
  return id;
}

const read = (volumeId: string) => readFile(join(stateDir, 'volumes', `volume-${volumeId}`));

test('backups outlive the service: made, stopped, started, extended, restored', async () => {
  const first = await start();
  const one = createRestClient(first.url, signal);
  const volumeId = await putVolume(1);
  requireAvailable(await one.settled(await one.createBackup({ volumeId })));
  await first.close();

  await writeFile(join(stateDir, 'volumes', `volume-${volumeId}`), patternBytes(300_000, 2), { flag: 'r+' });
  const second = await start();
  const two = createRestClient(second.url, signal);
  const id = await two.createBackup({ volumeId, incremental: true });
  expect(requireAvailable(await two.settled(id))).toMatchObject({ is_incremental: true });
  const target = await putVolume(9);
  await two.restore(id, target);
  requireAvailable(await two.settled(id));
  expect((await read(target)).equals(await read(volumeId))).toBe(true);
  await second.close();
});

test('with backups in the store, an empty directory in its place is not taken for it', async () => {
  const first = await start();
  const one = createRestClient(first.url, signal);
  const volumeId = await putVolume(1);
  const id = await one.createBackup({ volumeId });
  requireAvailable(await one.settled(id));
  await first.close();

  const store = join(stateDir, 'backups');
  await rename(store, `${store}.away`);
  const second = await start();
  const two = createRestClient(second.url, signal);
  const next = await two.settled(await two.createBackup({ volumeId }));
  expect(next).toMatchObject({ status: 'error', fail_reason: expect.stringMatching(/not mounted/) });
  expect(await readdir(store)).toEqual([]);
  await second.close();

  await rm(store, { recursive: true });
  await rename(`${store}.away`, store);
  const third = await start();
  const three = createRestClient(third.url, signal);
  requireAvailable(await three.settled(await three.createBackup({ volumeId, incremental: true })));
  await third.close();
});

test('a second service on the same state is refused by name, and does not disturb the first', async () => {
  const first = await start();
  await expect(start()).rejects.toMatchObject({
    code: 'state-invalid',
    message: expect.stringContaining(stateDir),
  });
  const client = createRestClient(first.url, signal);
  expect(await client.backups()).toEqual([]);
  await first.close();
  await (await start()).close();
});

test('a port that is taken is told with the remedy, and everything is let go of', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  await expect(start({}, port)).rejects.toMatchObject({
    code: 'config-invalid',
    message: expect.stringContaining('--port'),
  });
  await (await start()).close();
  await new Promise((resolve) => server.close(resolve));
});

test('the agent answers nobody without its token', async () => {
  const service = await start();
  const answer = await fetch(`${service.agentUrl}/v1/backends`);
  expect(answer.status).toBe(401);
  await answer.body?.cancel();
  await service.close();
});

test('a stop cancels what does not end in time, and the next start finds everything in order', async () => {
  const service = await start({ drainMs: 0 });
  const client = createRestClient(service.url, signal);
  const volumeId = await client.createVolume('large', 2);
  await writeFile(join(stateDir, 'volumes', `volume-${volumeId}`), patternBytes(64 * 1024 * 1024, 3), {
    flag: 'r+',
  });
  const id = await client.createBackup({ volumeId });
  await service.close();

  const again = await start();
  const later = createRestClient(again.url, signal);
  expect(await later.backup(id)).toMatchObject({ status: 'error', fail_reason: 'the service is stopping' });
  expect(await later.volume(volumeId)).toMatchObject({ status: 'available' });
  await again.close();
});

test.each([1, 15, 1000])(
  'the agent has room for all streams and snapshots of %d operations',
  (operations) => {
    const { maxStreams, maxSnapshots } = agentRoom(operations);
    expect(maxStreams).toBeGreaterThan(2 * operations);
    expect(maxSnapshots).toBeGreaterThan(operations);
  },
);
