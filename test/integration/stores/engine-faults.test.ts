/** Whole backups, restores and deletes through a store that misbehaves: what passes by itself, what ends in an error, and how memory fares. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { s3ApiOptions, s3Store, swiftStore, tempAuthOptions } from '../../support/cloud-stores.ts';
import { startEngine, type Engine, type EngineVolume } from '../../support/engine.ts';
import { startFaultProxy, type Act, type FaultProxy } from '../../support/fault-proxy.ts';
import { peakResidentBytes, processTree, resetPeak } from '../../support/process-memory.ts';
import { startSwift, type SwiftServer } from '../../support/swift-server.ts';
import { expectContent } from '../../support/tracked-volume.ts';
import { listedKeys } from '../../support/listed-keys.ts';

const MiB = 1024 * 1024;
const container = 'faults';
const stillMs = 5000;
/** Beside the ceiling: streams of the agent, segments of the hash list, and what the collector has not yet looked at. */
const besideCeilingBytes = 32 * MiB;

const kinds = [
  {
    name: 'swift',
    conf: (url: string) => `backup_driver = cinder.backup.drivers.swift.SwiftBackupDriver
backup_swift_auth = single_user
backup_swift_auth_url = ${url}/auth/v1.0
backup_swift_user = test:tester
backup_swift_key = testing
backup_swift_container = ${container}
backup_swift_retry_backoff = 1
`,
    direct: (server: SwiftServer) => swiftStore(tempAuthOptions(server.authUrl)),
    removal: /^(?:DELETE|POST) \/v1\/\S+/,
  },
  {
    name: 's3',
    conf: (url: string) => `backup_driver = cinder.backup.drivers.s3.S3BackupDriver
backup_s3_endpoint_url = ${url}
backup_s3_store_access_key = test:tester
backup_s3_store_secret_key = testing
backup_s3_store_bucket = ${container}
backup_s3_timeout = 2
`,
    direct: (server: SwiftServer) => s3Store(s3ApiOptions(server.url)),
    removal: /^(?:DELETE|POST) \/faults/,
  },
] as const;

const passing: readonly { readonly what: string; readonly act: Act }[] = [
  { what: 'resets', act: { do: 'reset', afterBytes: 30_000 } },
  { what: 'answers of 503', act: { do: 'answer', status: 503 } },
  { what: 'answers of 429', act: { do: 'answer', status: 429 } },
];

let server: SwiftServer;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-faults-'));
  server = await startSwift();
});
afterAll(async () => {
  await server.stop();
  await rm(directory, { recursive: true });
});

describe.each(kinds)('with $name', ({ name, conf, direct, removal }) => {
  let proxy: FaultProxy;
  let engine: Engine;
  let volume: EngineVolume;
  const put = /^PUT \S+\/volume_/;
  const get = /^GET \S+\/volume_\S+-0\d{4}\b/;

  const start = async (
    args: readonly string[],
    sizeBytes: number,
    objectBytes: number,
    text = conf(proxy.url),
  ) => {
    const path = join(directory, `${name}.conf`);
    await writeFile(path, `[DEFAULT]\n${text}`);
    engine = await startEngine({ codec: 'none', objectBytes, args: ['--store-config', path, ...args] });
    volume = await engine.addVolume(sizeBytes);
  };
  beforeEach(async () => {
    proxy = await startFaultProxy(server.port);
  });
  afterEach(async () => {
    await engine[Symbol.asyncDispose]();
    await proxy.close();
  });

  const restore = async (backupId: string) => {
    const target = await engine.addVolume(volume.file.sizeBytes);
    await engine.restore(backupId, target.id);
    await expectContent(target.file.path, volume.file.content());
  };
  const listed = async () => {
    const store = direct(server);
    const keys = await listedKeys(store, container, `volume_${volume.id}`);
    await store.close();
    return keys;
  };

  test.each(passing)(
    '$what during backup, increment, restore and delete pass by themselves',
    async ({ act }) => {
      await start([], 24 * MiB, 4 * MiB);
      await volume.file.write([{ offset: 0, length: 24 * MiB }]);
      proxy.plan({ act, on: put, times: 3 });
      const full = await engine.backup(volume.id, 'full');
      expect(proxy.fired).toBe(3);
      await volume.file.write([{ offset: 5 * MiB, length: 3 * MiB }]);
      proxy.plan({ act, on: put, times: 2 });
      const increment = await engine.backup(volume.id, 'incremental');
      expect(proxy.fired).toBe(2);
      proxy.plan({ act: act.do === 'reset' ? { do: 'truncate', afterBytes: MiB } : act, on: get, times: 3 });
      await restore(increment.id);
      expect(proxy.fired).toBe(3);
      proxy.plan({ act: { do: 'answer', status: 503 }, on: removal, times: 2 });
      for (const { id } of [increment, full]) {
        await engine.client.deleteBackup(id);
        expect(await engine.client.settled(id)).toBeUndefined();
      }
      expect(proxy.fired).toBe(2);
      expect(await listed()).toEqual([]);
    },
  );

  test('a store that refuses for good ends the backup in an error that says why, and the next one is whole', async () => {
    await start([], 12 * MiB, 4 * MiB);
    await volume.file.write([{ offset: 0, length: 12 * MiB }]);
    proxy.plan({ act: { do: 'answer', status: 403 }, on: put, times: 999 });
    const id = await engine.client.createBackup({ volumeId: volume.id });
    expect(await engine.client.settled(id)).toMatchObject({
      status: 'error',
      fail_reason: expect.stringMatching(/forbids|refuses/),
    });
    proxy.plan(null);
    const { id: second } = await engine.backup(volume.id, 'full');
    await restore(second);
    const left = (await listed()).filter((key) => key.includes(id));
    expect(left.filter((key) => key.endsWith('_metadata'))).toEqual([]);
  });

  test('bytes that were changed on the way end a restore in an error', async () => {
    await start([], 12 * MiB, 4 * MiB);
    await volume.file.write([{ offset: 0, length: 12 * MiB }]);
    const { id } = await engine.backup(volume.id, 'full');
    const target = await engine.addVolume(12 * MiB);
    proxy.plan({ act: { do: 'flip', side: 'answer', atByte: 2 * MiB }, on: get });
    await engine.client.restore(id, target.id);
    await engine.client.settled(id);
    expect(proxy.fired).toBe(1);
    expect((await engine.client.volume(target.id)).status).toBe('error_restoring');
  });

  test('a store that stalls holds the backup back, not in memory', async () => {
    const memoryMiB = 64;
    await start(['--memory-mib', `${memoryMiB}`], 512 * MiB, 8 * MiB);
    await volume.file.write([{ offset: 0, length: 512 * MiB }]);
    const idle = await residentBytes();
    proxy.plan({ act: { do: 'throttle', side: 'request', bytesPerSecond: 20 * MiB }, on: put, times: 12 });
    await engine.backup(volume.id, 'full');
    const peak = await residentBytes();
    console.log(`${name}: ${Math.round(idle / MiB)} MiB before, ${Math.round(peak / MiB)} MiB at the peak`);
    expect(peak - idle).toBeLessThan(3 * memoryMiB * MiB);
  });

  test(`a store that stands still for ${stillMs / 1000} s holds backup and restore back, not in memory`, async () => {
    const memoryMiB = 64;
    const sizeBytes = 256 * MiB;
    const patient = conf(proxy.url).replace('backup_s3_timeout = 2', 'backup_s3_timeout = 60');
    await start(['--memory-mib', `${memoryMiB}`], sizeBytes, 8 * MiB, patient);
    await volume.file.write([{ offset: 0, length: sizeBytes }]);
    const warm = await engine.addVolume(16 * MiB);
    await engine.restore((await engine.backup(warm.id, 'full')).id, warm.id);

    /** Stops the store when three requests of `on` were seen; returns how much more memory was held then, or later. */
    const growth = async (on: RegExp, work: Promise<unknown>): Promise<number> => {
      await resetPeaks();
      const idle = await residentBytes();
      proxy.plan(null);
      const isBusy = () => proxy.seen.filter((line) => on.test(line)).length >= 3;
      while (!isBusy()) await sleep(20);
      proxy.freeze();
      const seen = proxy.seen.length;
      await sleep(stillMs);
      expect(proxy.seen).toHaveLength(seen);
      proxy.thaw();
      await work;
      return (await residentBytes()) - idle;
    };
    const backedUp = engine.backup(volume.id, 'full');
    const ofBackup = await growth(put, backedUp);
    const ofRestore = await growth(get, restore((await backedUp).id));
    console.log(`${name}: +${Math.round(ofBackup / MiB)} MiB, +${Math.round(ofRestore / MiB)} MiB`);
    expect(Math.max(ofBackup, ofRestore)).toBeLessThan(memoryMiB * MiB + besideCeilingBytes);
  });

  async function resetPeaks(): Promise<void> {
    for (const pid of await processTree(engine.service.pid)) await resetPeak(pid);
  }

  async function residentBytes(): Promise<number> {
    let sum = 0;
    for (const pid of await processTree(engine.service.pid)) sum += await peakResidentBytes(pid);
    return sum;
  }
});
