import { expect, test } from 'vitest';
import { adminContext } from '../../src/bus/bus-context.ts';
import { openKeys } from '../../src/main/open-keys.ts';

const { signal } = new AbortController();
const context = adminContext('req-1', new Date('2026-11-22T10:00:00Z'));
const fixed = '00000000-0000-0000-0000-000000000000';
const other = 'd152fa13-2b41-42ca-a934-6c21566c0f40';

const keysWith = (backend: string) => openKeys({ kind: 'unsupported', backend }, undefined).keysOf(context);

test('the fixed key of the configuration is its own copy, and is never removed', async () => {
  const keys = keysWith('cinder.keymgr.conf_key_mgr.ConfKeyManager');
  expect(await keys.clone(fixed, signal)).toBe(fixed);
  await expect(keys.remove(fixed, signal)).resolves.toBeUndefined();
});

test('other keys are refused by the name of the key manager', async () => {
  for (const backend of ['vault', 'cinder.keymgr.conf_key_mgr.ConfKeyManager']) {
    const refused = { code: 'state-invalid', message: expect.stringContaining(backend) };
    await expect(keysWith(backend).clone(other, signal)).rejects.toMatchObject(refused);
    await expect(keysWith(backend).remove(other, signal)).rejects.toMatchObject(refused);
  }
  await expect(keysWith('vault').clone(fixed, signal)).rejects.toMatchObject({ code: 'state-invalid' });
});

test('a backup that still has the fixed key can be deleted where keys are in Barbican by now', async () => {
  const keys = openKeys(
    {
      kind: 'barbican',
      endpoint: 'http://127.0.0.1:1',
      endpointType: 'public',
      regionName: undefined,
      verifyTls: true,
      caFile: undefined,
      apiVersion: undefined,
      serviceUser: undefined,
    },
    undefined,
  );
  await expect(keys.keysOf(context).remove(fixed, signal)).resolves.toBeUndefined();
  await keys.close();
});
