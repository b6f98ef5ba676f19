/** Chains that our engine and Cinder's own SwiftBackupDriver and S3BackupDriver make, extend and restore together, on one real server. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  startCinderPeer,
  type CinderPeer,
  type PeerDriver,
  type PeerOptions,
} from '../support/cinder-peer.ts';
import { s3ApiOptions, s3Store, swiftStore, tempAuthOptions } from '../support/cloud-stores.ts';
import { startEngine, type Engine } from '../support/engine.ts';
import { changeAtRandom } from '../support/random-changes.ts';
import { createRandom } from '../support/random-volume.ts';
import { startSwift, type SwiftServer } from '../support/swift-server.ts';
import { createMixedChain, type MixedChain, type Side } from './mixed-chain.ts';
import { listedKeys } from '../support/listed-keys.ts';

const MiB = 1024 * 1024;
const objectBytes = MiB;
const sizeBytes = 6 * MiB + 1536;
const turns = (text: string): readonly Side[] =>
  Array.from(text, (letter) => (letter === 'C' ? 'cinder' : 'ours'));

/** Options of [DEFAULT], for both sides. */
type CloudOptions = (server: SwiftServer) => PeerOptions;

const drivers: readonly {
  readonly driver: PeerDriver;
  readonly className: string;
  readonly options: CloudOptions;
}[] = [
  {
    driver: 'swift',
    className: 'cinder.backup.drivers.swift.SwiftBackupDriver',
    options: (server) => ({
      backup_swift_auth: 'single_user',
      backup_swift_auth_version: '1',
      backup_swift_auth_url: server.authUrl,
      backup_swift_user: 'test:tester',
      backup_swift_key: 'testing',
      backup_swift_container: 'interop-swift',
      backup_swift_object_size: objectBytes,
    }),
  },
  {
    driver: 's3',
    className: 'cinder.backup.drivers.s3.S3BackupDriver',
    options: (server) => ({
      backup_s3_endpoint_url: server.url,
      backup_s3_store_access_key: 'test:tester',
      backup_s3_store_secret_key: 'testing',
      backup_s3_store_bucket: 'interop-s3',
      backup_s3_object_size: objectBytes,
    }),
  },
];

let server: SwiftServer;
let peer: CinderPeer;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-interop-'));
  peer = startCinderPeer();
  server = await startSwift();
});
afterAll(async () => {
  await server.stop();
  await peer[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

describe.each(drivers)('with Cinder on $driver', ({ driver, className, options }) => {
  const engineOf = async (codec: 'zlib' | 'none' | 'bz2' | 'zstd'): Promise<Engine> => {
    const path = join(directory, `${driver}-${codec}.conf`);
    const lines = Object.entries(options(server)).map(([name, value]) => `${name} = ${value}`);
    await writeFile(path, ['[DEFAULT]', `backup_driver = ${className}`, ...lines, ''].join('\n'));
    return await startEngine({ codec, objectBytes, args: ['--store-config', path] });
  };
  const newChain = async (engine: Engine, spelling: string): Promise<MixedChain> => {
    const volume = await engine.addVolume(sizeBytes);
    await volume.file.write([
      { offset: 0, length: 2 * MiB + 512 },
      { offset: 4 * MiB, length: sizeBytes - 4 * MiB },
    ]);
    const peerOptions = { ...options(server), backup_compression_algorithm: spelling };
    return createMixedChain({ engine, peer, volume, driver, options: peerOptions });
  };

  it.each([
    ['zlib', 'zlib', 'OCOC'],
    ['zlib', 'gzip', 'COCO'],
    ['none', 'off', 'OCOC'],
    ['none', 'none', 'COCO'],
    ['bz2', 'bzip2', 'OCOC'],
    ['zstd', 'zstd', 'COCO'],
  ] as const)('codec %s, Cinder says %s: chain %s restores on both sides', async (codec, spelling, order) => {
    await using engine = await engineOf(codec);
    const chain = await newChain(engine, spelling);
    const random = createRandom();
    for (const [at, side] of turns(order).entries()) {
      if (at > 0) await changeAtRandom(random, chain.volume.file);
      const { row } = await chain.add(side);
      expect(row.container).toBe(driver === 's3' ? 'interop-s3' : 'interop-swift');
    }
    await chain.expectEveryLayerRestores();
    await chain.expectEveryLayerVerifies();
  });

  it('each side deletes the backups of the other and leaves nothing', async () => {
    await using engine = await engineOf('zlib');
    const chain = await newChain(engine, 'zlib');
    const ours = await chain.add('ours');
    await chain.volume.file.write([{ offset: MiB, length: 4096 }]);
    const theirs = await chain.add('cinder');
    const store =
      driver === 's3' ? s3Store(s3ApiOptions(server.url)) : swiftStore(tempAuthOptions(server.authUrl));
    const left = (prefix: string | null) => listedKeys(store, ours.row.container ?? '', prefix ?? '');
    expect((await left(theirs.row.service_metadata)).length).toBeGreaterThan(2);
    await engine.client.deleteBackup(theirs.row.id);
    await expect.poll(() => engine.rows().map(({ id }) => id), { timeout: 20_000 }).toEqual([ours.row.id]);
    expect(await left(theirs.row.service_metadata)).toEqual([]);
    expect((await left(ours.row.service_metadata)).length).toBeGreaterThan(2);
    const rows = [ours.row];
    await peer.perform({ op: 'delete', driver, options: options(server), rows, backup_id: ours.row.id });
    expect(await left(ours.row.service_metadata)).toEqual([]);
    await store.close();
  });
});
