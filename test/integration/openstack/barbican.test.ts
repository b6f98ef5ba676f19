/** Keys in a real Barbican behind a real Keystone, beside castellan and Cinder's own function. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import type { BusContext } from '../../../src/bus/bus-context.ts';
import { parseConfigFile } from '../../../src/config/config-files.ts';
import { serviceConfigOf } from '../../../src/config/service-config.ts';
import { openKeys, type Keys } from '../../../src/main/open-keys.ts';
import { startBarbican, type BarbicanServer } from '../../support/barbican-server.ts';
import { freePorts } from '../../support/free-ports.ts';
import { startKeystone, type KeystoneServer } from '../../support/keystone-server.ts';
import { startPythonPeer, type PythonPeer } from '../../support/python-peer.ts';
import { userContext } from '../../support/user-context.ts';

const { signal } = new AbortController();
const bytes = Buffer.from(Array.from({ length: 32 }, (_, index) => (index * 37 + 200) % 256)).toString('hex');

let keystone: KeystoneServer;
let barbican: BarbicanServer;
let peer: PythonPeer;
let keys: Keys;
const contexts = new Map<string, BusContext>();

beforeAll(async () => {
  const [keystonePort = 0, barbicanPort = 0] = await freePorts(2);
  const services = [{ type: 'key-manager', name: 'barbican', url: `http://127.0.0.1:${barbicanPort}` }];
  keystone = await startKeystone({ swiftUrl: 'http://127.0.0.1:1', port: keystonePort, services });
  barbican = await startBarbican(keystone.url, barbicanPort);
  const settings = { endpoint: barbican.url, auth_url: `${keystone.url}/v3` };
  peer = startPythonPeer(
    fileURLToPath(new URL('castellan_peer.py', import.meta.url)),
    JSON.stringify(settings),
  );
  keys = openTestKeys('');
});

afterAll(async () => {
  await keys.close();
  await peer.close();
  await barbican.stop();
  await keystone.stop();
});

/** Configured as from a cinder.conf: Barbican is found in the catalog of the request. */
function openTestKeys(more: string): Keys {
  const text = `[DEFAULT]
transport_url = rabbit://127.0.0.1:1/
backup_driver = cinder.backup.drivers.posix.PosixBackupDriver
[database]
connection = sqlite:////nowhere
[keystone_authtoken]
auth_type = password
auth_url = ${keystone.url}/v3
username = cinder
password = cinder
project_name = service
user_domain_id = default
project_domain_id = default
${more}
`;
  const { config } = serviceConfigOf({ files: [parseConfigFile('cinder.conf', text, [])], problems: [] });
  return openKeys(config.keyManager, config.ownCredentials);
}

const contextOf = async (user: string, project: string): Promise<BusContext> => {
  const known = contexts.get(user) ?? (await userContext(keystone.url, user, project));
  contexts.set(user, known);
  return known;
};

const answerSchema = z.object({
  error: z.string().optional(),
  id: z.string().optional(),
  key: z.record(z.string(), z.unknown()).nullish(),
});

async function ask(context: BusContext, request: Readonly<Record<string, unknown>>) {
  const { error, ...answer } = answerSchema.parse(
    await peer.ask({
      ...request,
      token: context.authToken,
      project: context.projectId,
      catalog: context.items['service_catalog'],
    }),
  );
  if (error !== undefined) throw new Error(`${error}\n${await barbican.log()}`);
  return answer;
}

async function storeKey(context: BusContext, more: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const { id } = await ask(context, { op: 'store', bytes, name: 'volume key', ...more });
  return z.string().parse(id);
}

test('a copy of a key is to castellan what the key is, under another id', async () => {
  const context = await contextOf('demo', 'demo');
  const id = await storeKey(context);
  const copy = await keys.keysOf(context).clone(id, signal);
  expect(copy).not.toBe(id);
  const { key: original } = await ask(context, { op: 'get', id });
  expect(await ask(context, { op: 'get', id: copy })).toEqual({ key: original });
  expect(original).toMatchObject({
    type: 'SymmetricKey',
    bytes,
    name: 'volume key',
    algorithm: 'aes',
    bits: 256,
  });
});

test("our copy is described in Barbican as that of Cinder's own function", async () => {
  const context = await contextOf('demo', 'demo');
  const id = await storeKey(context);
  const theirs = z.string().parse((await ask(context, { op: 'clone', id })).id);
  const ours = await keys.keysOf(context).clone(id, signal);
  const describe = async (secretId: string) => {
    const answer = await fetch(`${barbican.url}/v1/secrets/${secretId}`, {
      headers: { 'x-auth-token': context.authToken ?? '', accept: 'application/json' },
    });
    const all = z.record(z.string(), z.unknown()).parse(await answer.json());
    const { created: _created, updated: _updated, secret_ref: _ref, ...described } = all;
    return described;
  };
  expect(await describe(ours)).toEqual(await describe(theirs));
});

test('a passphrase is copied too', async () => {
  const context = await contextOf('demo', 'demo');
  const id = await storeKey(context, { passphrase: true });
  const copy = await keys.keysOf(context).clone(id, signal);
  expect((await ask(context, { op: 'get', id: copy })).key).toMatchObject({ type: 'Passphrase', bytes });
});

test('a removed key is gone for castellan, and can be removed again', async () => {
  const context = await contextOf('demo', 'demo');
  const id = await storeKey(context);
  const own = keys.keysOf(context);
  await own.remove(id, signal);
  expect((await ask(context, { op: 'get', id })).key).toBeNull();
  await own.remove(id, signal);
});

test('the copy goes when castellan removes it', async () => {
  const context = await contextOf('demo', 'demo');
  const own = keys.keysOf(context);
  const copy = await own.clone(await storeKey(context), signal);
  await ask(context, { op: 'delete', id: copy });
  await expect(own.clone(copy, signal)).rejects.toMatchObject({ code: 'not-found' });
});

test('a user of another project can neither copy nor remove the key', async () => {
  const id = await storeKey(await contextOf('demo', 'demo'));
  const stranger = await contextOf('backup', 'backups');
  await expect(keys.keysOf(stranger).clone(id, signal)).rejects.toMatchObject({ code: 'store-denied' });
  await expect(keys.keysOf(stranger).remove(id, signal)).rejects.toMatchObject({ code: 'store-denied' });
  expect((await ask(await contextOf('demo', 'demo'), { op: 'get', id })).key).not.toBeNull();
});

test('a user who may only read cannot store a copy', async () => {
  const id = await storeKey(await contextOf('demo', 'demo'));
  const reader = await contextOf('stranger', 'demo');
  await expect(keys.keysOf(reader).clone(id, signal)).rejects.toMatchObject({
    code: 'store-denied',
    message: expect.stringContaining('needs a role in the project'),
  });
});

test('a key of the service itself is removed for a user who may not', async () => {
  const service = await contextOf('cinder', 'service');
  const id = await storeKey(service);
  await keys.keysOf(await contextOf('backup', 'backups')).remove(id, signal);
  expect((await ask(service, { op: 'get', id })).key).toBeNull();
});

test('a token that Keystone does not know is refused in plain words', async () => {
  const context = await contextOf('demo', 'demo');
  const expired = { ...context, authToken: 'gAAAAA-not-a-token' };
  await expect(keys.keysOf(expired).clone(await storeKey(context), signal)).rejects.toMatchObject({
    code: 'store-denied',
    message: expect.stringContaining('401'),
  });
});

test('a key manager other than Barbican is refused by its name', async () => {
  const other = openTestKeys(
    '[key_manager]\nbackend = cinder.keymgr.conf_key_mgr.ConfKeyManager\nfixed_key = 00',
  );
  const context = await contextOf('demo', 'demo');
  await expect(other.keysOf(context).clone('any', signal)).rejects.toMatchObject({
    code: 'state-invalid',
    message: expect.stringContaining('ConfKeyManager'),
  });
  await other.close();
});

test('a Barbican that is away is told with its address', async () => {
  const away = openTestKeys('[barbican]\nbarbican_endpoint = http://127.0.0.1:1');
  const context = await contextOf('demo', 'demo');
  await expect(
    away.keysOf(context).clone('d152fa13-2b41-42ca-a934-6c21566c0f40', signal),
  ).rejects.toMatchObject({
    code: 'store-unavailable',
    message: expect.stringContaining('Barbican at http://127.0.0.1:1 refuses connections'),
  });
  await away.close();
});
