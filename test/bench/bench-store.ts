/** Where a bench's backups go: two directories, or one real Swift (through its own API or s3api), for both sides alike. */
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ObjectStore } from '../../src/store/object-store.ts';
import type { PeerDriver, PeerOptions } from '../support/cinder-peer.ts';
import { s3ApiOptions, s3Store, swiftStore, tempAuthOptions } from '../support/cloud-stores.ts';
import { startSwift, type SwiftServer } from '../support/swift-server.ts';

export const benchStoreKinds = ['posix', 'swift', 's3'] as const;
export type BenchStoreKind = (typeof benchStoreKinds)[number];

/** One volume's life in a store. */
export type BenchPlace = {
  readonly driver: PeerDriver;
  /** Options of Cinder's driver but for the codec. */
  readonly peerOptions: PeerOptions;
  /** More arguments of our service. */
  readonly serviceArgs: readonly string[];
  /** Bytes of all objects of a backup. */
  storedBytes(backup: { readonly id: string; readonly container: string | null }): Promise<number>;
};

export type BenchStore = AsyncDisposable & {
  /** For the report. */
  readonly description: string;
  /** Puts of 50 MiB side by side, raw and by our store, and gets likewise; null where that tells nothing. */
  readonly server: SwiftServer | null;
  /** `folder` is empty and the place's own; the service keeps its state in `folder`/ours. */
  place(folder: string): Promise<BenchPlace>;
};

const objectBytes = 52_428_800;
const bucket = 'bench';
const live = new AbortController().signal;

export async function createBenchStore(kind: BenchStoreKind): Promise<BenchStore> {
  if (kind === 'posix') return createDirectories();
  const server = await startSwift({ workers: 2 });
  const store: ObjectStore =
    kind === 'swift' ? swiftStore(tempAuthOptions(server.authUrl)) : s3Store(s3ApiOptions(server.url));
  await store.ensureContainer(bucket, live);
  return {
    description: `Swift ${kind === 'swift' ? 'with TempAuth' : 'through s3api'}, one copy, on ${server.directory}`,
    server,
    async place(folder) {
      const [className, settings] = kind === 'swift' ? swiftSettings(server) : s3Settings(server);
      const conf = join(folder, 'cinder.conf');
      const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}`);
      await writeFile(conf, ['[DEFAULT]', `backup_driver = ${className}`, ...lines, ''].join('\n'));
      return {
        driver: kind,
        peerOptions: settings,
        serviceArgs: ['--store-config', conf],
        async storedBytes({ id }) {
          let sum = 0;
          for await (const page of store.list(bucket, 'volume_', live)) {
            for (const { key, sizeBytes } of page) {
              if (key.includes(`_backup_${id}`)) sum += sizeBytes ?? Number.NaN;
            }
          }
          return sum;
        },
      };
    },
    async [Symbol.asyncDispose]() {
      await store.close();
      await server.stop();
    },
  };
}

function createDirectories(): BenchStore {
  return {
    description: 'directories beside the volumes',
    server: null,
    async place(folder) {
      const cinderStore = join(folder, 'cinder');
      await mkdir(cinderStore);
      const roots = [cinderStore, join(folder, 'ours', 'backups')];
      return {
        driver: 'posix',
        peerOptions: { backup_posix_path: cinderStore, backup_file_size: objectBytes },
        serviceArgs: [],
        async storedBytes({ container }) {
          const sums = await Promise.all(roots.map((root) => directoryBytes(join(root, container ?? ''))));
          return sums.reduce((sum, bytes) => sum + bytes, 0);
        },
      };
    },
    async [Symbol.asyncDispose]() {
      await Promise.resolve();
    },
  };
}

function swiftSettings(server: SwiftServer): [string, PeerOptions] {
  return [
    'cinder.backup.drivers.swift.SwiftBackupDriver',
    {
      backup_swift_auth: 'single_user',
      backup_swift_auth_version: '1',
      backup_swift_auth_url: server.authUrl,
      backup_swift_user: 'test:tester',
      backup_swift_key: 'testing',
      backup_swift_container: bucket,
      backup_swift_object_size: objectBytes,
    },
  ];
}

function s3Settings(server: SwiftServer): [string, PeerOptions] {
  return [
    'cinder.backup.drivers.s3.S3BackupDriver',
    {
      backup_s3_endpoint_url: server.url,
      backup_s3_store_access_key: 'test:tester',
      backup_s3_store_secret_key: 'testing',
      backup_s3_store_bucket: bucket,
      backup_s3_object_size: objectBytes,
    },
  ];
}

/** 0 for a directory that is not there: a backup lies in one of the two roots. */
async function directoryBytes(path: string): Promise<number> {
  const names = await readdir(path).catch(() => []);
  let sum = 0;
  for (const name of names) sum += (await stat(join(path, name))).size;
  return sum;
}
