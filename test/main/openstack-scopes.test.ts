/** What each request is done in, above all with Swift and the token of each caller. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readContext } from '../../src/bus/bus-context.ts';
import type { MessageBus } from '../../src/bus/message-bus.ts';
import { createScopes, type ScopeDeps } from '../../src/main/openstack-scopes.ts';
import { BackupError } from '../../src/model/errors.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import type { SwiftCaller } from '../../src/store/swift-options.ts';
import { createRig, startMachine, type Machine, type Rig } from '../manager/rig.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { listedKeys } from '../support/listed-keys.ts';

const { signal } = new AbortController();
let machine: Machine;
let rig: Rig;
beforeAll(async () => {
  machine = await startMachine();
  rig = createRig(machine);
});
afterAll(async () => {
  await rig.close();
  await machine.close();
});

const bus: MessageBus = {
  isConnected: true,
  notifier: { notifyBackup: () => {}, settle: async () => await Promise.resolve() },
  serve: () => {},
  cast: async () => await Promise.resolve(),
  call: async () => await Promise.resolve(null),
  drain: async () => await Promise.resolve(),
  close: async () => await Promise.resolve(),
};

function openScopes(openCallerStore: ScopeDeps['openCallerStore']) {
  const { cloud: _, ...base } = rig.environment;
  return createScopes({
    base,
    bus,
    isWorking: () => true,
    hasWorked: () => true,
    keysOf: () => rig.environment.cloud.keys,
    openCallerStore,
  });
}

const asker = (token: string | null, project = 'demo') =>
  readContext({
    auth_token: token,
    project_id: project,
    request_id: 'req-7',
    service_catalog: [{ type: 'x' }],
  });

const nothing = async () => await Promise.resolve();
const check = async () => await Promise.resolve({ ready: true, findings: [] });

function createCallerStores() {
  const callers: (SwiftCaller | null)[] = [];
  const closed: string[] = [];
  const openCallerStore = (caller: SwiftCaller | null) => {
    callers.push(caller);
    if (caller === null) throw new BackupError('store-denied', 'nobody has a token');
    const memory = createMemoryStore();
    const store: ObjectStore = {
      ...memory,
      close: async () => await Promise.resolve(void closed.push(caller.authToken)),
    };
    return { store, naming: 'swift' as const, container: 'c', adopt: nothing, check };
  };
  const scopeOf = openScopes(openCallerStore);
  return { callers, closed, scopeOf };
}

test('the store of a caller is opened with his token when it is first used, once, and closed at the end', async () => {
  const { callers, closed, scopeOf } = createCallerStores();
  const { environment, context } = scopeOf(asker('token-1'));
  expect(context).toEqual({ projectId: 'demo', userId: '', requestId: 'req-7' });
  const { store } = environment.resources;
  expect(store.service).toBe(rig.store.service);
  expect(callers).toEqual([]);
  await store.ensureContainer('c', signal);
  await store.put('c', 'k', Buffer.from('bytes'), { signal });
  expect(await listedKeys(store, 'c')).toEqual(['k']);
  expect(callers).toEqual([{ authToken: 'token-1', projectId: 'demo', serviceCatalog: [{ type: 'x' }] }]);
  await environment.cloud.end();
  expect(closed).toEqual(['token-1']);
});

test('two callers have two stores', async () => {
  const { callers, scopeOf } = createCallerStores();
  const [one, other] = [scopeOf(asker('token-1')), scopeOf(asker('token-2', 'other'))];
  await one.environment.resources.store.ensureContainer('c', signal);
  await other.environment.resources.store.ensureContainer('c', signal);
  expect(callers.map((caller) => caller?.projectId)).toEqual(['demo', 'other']);
});

test('nobody, or a project without a token, is refused at the first use', async () => {
  const { scopeOf } = createCallerStores();
  const { environment } = scopeOf(asker(null));
  await expect(environment.resources.store.flush('c', 'a', signal)).rejects.toMatchObject({
    code: 'store-denied',
  });
  await environment.cloud.end();
});

test('one store serves all where the driver has a user of its own', () => {
  const scopeOf = openScopes(undefined);
  expect(scopeOf(asker('t')).environment.resources.store).toBe(rig.environment.resources.store);
});
