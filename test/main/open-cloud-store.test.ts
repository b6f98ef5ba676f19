/** Which configurations have one store, and which a store for each caller. */
import { describe, expect, test } from 'vitest';
import { parseConfigFile } from '../../src/config/config-files.ts';
import { serviceConfigOf } from '../../src/config/service-config.ts';
import { openCloudStore, type CloudStore } from '../../src/main/open-cloud-store.ts';
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
    await expect(store.flush('c', signal)).rejects.toMatchObject({ code });
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
