/** Which configurations have one store, and which a store for each caller. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseConfigFile } from '../../src/config/config-files.ts';
import { nfsMountPoint } from '../../src/config/nfs-mount-point.ts';
import { serviceConfigOf } from '../../src/config/service-config.ts';
import { openCloudStore, type CloudStore } from '../../src/main/open-cloud-store.ts';
import { markerName } from '../../src/store/posix-root.ts';
import type { SwiftCaller } from '../../src/store/swift-options.ts';
import { silentLog } from '../support/cloud-stores.ts';

const { signal } = new AbortController();
const swift = 'backup_driver = cinder.backup.drivers.swift.SwiftBackupDriver\n';
const singleUser = `${swift}backup_swift_auth = single_user
backup_swift_user = cinder
backup_swift_key = secret
backup_swift_auth_version = 3
backup_swift_project = service
`;
const caller: SwiftCaller = {
  authToken: 'token',
  projectId: 'demo',
  serviceCatalog: [
    { type: 'object-store', name: 'swift', endpoints: [{ publicURL: 'http://127.0.0.1:1/v1/AUTH_demo' }] },
    { type: 'identity', name: 'keystone', endpoints: [{ publicURL: 'http://127.0.0.1:1/v3' }] },
  ],
};

function open(conf: string): CloudStore {
  const text = `[DEFAULT]
transport_url = rabbit://cinder@broker
${conf}
[database]
connection = mysql+pymysql://cinder@db/cinder
`;
  const files = [parseConfigFile('/etc/cinder.conf', text, [])];
  return openCloudStore(serviceConfigOf({ files, problems: [] }).config, silentLog);
}

describe.each([
  ['per_user', swift, 'store-denied'],
  ['single_user that looks Keystone up in the catalog', singleUser, 'config-invalid'],
])('%s', (_, conf, code) => {
  test('opens a store for each caller', async () => {
    const { openFor, store } = open(conf);
    const opened = openFor?.(caller);
    expect(opened?.store.kind).toBe('swift');
    await Promise.all([opened?.store.close(), store.close()]);
  });

  test('opens none for nobody', async () => {
    const { openFor, store } = open(conf);
    expect(() => openFor?.(null)).toThrow(expect.objectContaining({ code }));
    await expect(store.flush('c', 'a', signal)).rejects.toMatchObject({ code });
    await store.close();
  });
});

test.each([
  ['single_user with an auth URL', `${singleUser}backup_swift_auth_url = http://127.0.0.1:1/v3\n`],
  ['a directory', 'backup_driver = cinder.backup.drivers.posix.PosixBackupDriver\n'],
])('%s has one store for all', async (_, conf) => {
  const { openFor, store } = open(conf);
  expect(openFor).toBeUndefined();
  await store.close();
});

const nfs = 'backup_driver = cinder.backup.drivers.nfs.NFSBackupDriver\nbackup_share = nas:/export\n';

test.each([
  ['posix', 'backup_driver = cinder.backup.drivers.posix.PosixBackupDriver\n'],
  ['nfs', nfs],
])('%s gives each backup a directory of its own, whatever backup_container is', async (_, conf) => {
  const { container, store } = open(`${conf}backup_container = /srv/backups\n`);
  expect(container).toBeUndefined();
  await store.close();
});

test('the directory under a share that is not mounted is no store, though it was marked as one', async () => {
  const base = await mkdtemp(join(tmpdir(), 'open-cloud-store-'));
  try {
    const opened = open(`${nfs}backup_mount_point_base = ${base}\n`);
    const unmounted = { code: 'store-unavailable', message: expect.stringContaining('nas:/export') };
    await expect(opened.adopt(signal)).rejects.toMatchObject(unmounted);
    expect(await readdir(base)).toEqual([]);
    const mountPoint = nfsMountPoint(base, 'nas:/export');
    await mkdir(mountPoint);
    await expect(opened.adopt(signal)).rejects.toMatchObject(unmounted);
    expect(await readdir(mountPoint)).toEqual([]);
    await writeFile(join(mountPoint, markerName), '');
    expect(await opened.check(signal)).toEqual({ ready: false, findings: [unmounted.message] });
    await expect(opened.store.ensureContainer('c', signal)).rejects.toMatchObject(unmounted);
    await opened.store.close();
  } finally {
    await rm(base, { recursive: true });
  }
});
