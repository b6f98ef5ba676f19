import { expect, test } from 'vitest';
import { z } from 'zod';
import { logFieldsOf, readContext, withoutSecrets } from '../../src/bus/bus-context.ts';
import { readBackup, readBackupDevice, readList, writeBackup } from '../../src/bus/cinder-objects.ts';
import { decodeEnvelope, encodeEnvelope, type JsonObject } from '../../src/bus/envelope.ts';
import { parseFailure } from '../../src/bus/failure.ts';
import { usageOf } from '../../src/bus/notifier.ts';
import {
  parseReply,
  parseRequest,
  renderContext,
  renderReply,
  renderRequest,
} from '../../src/bus/rpc-message.ts';
import {
  decodeEntity,
  decodeMap,
  encodeEntity,
  encodeMap,
  isVersionedObject,
  type Entity,
} from '../../src/bus/versioned-object.ts';
import { wireFixture, wireFixtures } from '../support/wire-fixtures.ts';

const fixtures = wireFixtures();
const replies = fixtures.filter(({ name }) => name.endsWith('.reply'));
const notifications = fixtures.filter(({ name }) => name.startsWith('notification.'));
const requests = fixtures.filter((one) => !replies.includes(one) && !notifications.includes(one));

const messageOf = (payload: string): Promise<JsonObject> =>
  decodeEnvelope({ content: Buffer.from(payload), properties: {} });

const requestOf = async (name: string) => parseRequest(await messageOf(wireFixture(name).payload_raw));

const envelope = z.strictObject({ 'oslo.version': z.string(), 'oslo.message': z.string() });

/** The keys in their order, and the message without Python's spaces. */
function outer(text: string): readonly (readonly [string, string])[] {
  const raw: unknown = JSON.parse(text);
  const entries = Object.entries(envelope.parse(raw));
  return entries.map(([key, value]) => [
    key,
    key === 'oslo.message' ? JSON.stringify(JSON.parse(value)) : value,
  ]);
}

test('there are recordings of every kind', () => {
  expect([requests.length, replies.length, notifications.length].every((count) => count >= 10)).toBe(true);
});

test.each(fixtures)('$name keeps its envelope', async ({ payload_raw: payload }) => {
  const again = encodeEnvelope(await messageOf(payload)).toString();
  expect(outer(again)).toEqual(outer(payload));
});

test.each(requests)(
  '$name decodes and encodes to the same request, in the same order',
  async ({ payload_raw: payload }) => {
    const message = await messageOf(payload);
    const request = parseRequest(message);
    const again = renderRequest({ ...request, args: encodeMap(decodeMap(request.args)) });
    expect(JSON.stringify(again)).toBe(JSON.stringify(message));
  },
);

test.each(replies)(
  '$name decodes and encodes to the same reply, in the same order',
  async ({ payload_raw: payload }) => {
    const message = await messageOf(payload);
    const reply = parseReply(message);
    const again = renderReply({ ...reply, result: encodeEntity(decodeEntity(reply.result)) });
    expect(JSON.stringify(again)).toBe(JSON.stringify(message));
  },
);

test.each(requests)(
  'every Backup in $name is read, and written as it was',
  async ({ payload_raw: payload }) => {
    const { args } = parseRequest(await messageOf(payload));
    for (const object of objectsIn(decodeMap(args))) {
      if (object.name !== 'Backup') continue;
      const written = writeBackup(readBackup(object), '1.7', object.changes);
      expect(encodeEntity(written)).toEqual(encodeEntity(object));
    }
  },
);

function objectsIn(
  entity: Entity,
): (Entity & { readonly name: string; readonly changes: readonly string[] | undefined })[] {
  if (typeof entity !== 'object' || entity === null) return [];
  if (isVersionedObject(entity)) return [entity, ...Object.values(entity.data).flatMap(objectsIn)];
  return Object.values(entity).flatMap(objectsIn);
}

test('a nested parent is an object of its own', async () => {
  const { args } = await requestOf('create_backup.incremental');
  const { backup, parent } = readBackup(decodeMap(args)['backup']);
  expect(parent === undefined || parent === null ? parent : readBackup(parent).backup).toMatchObject({
    id: backup.parentId,
    status: 'available',
    prefix: expect.stringContaining('/az_nova_backup_'),
  });
});

test('version 1.6 has no parent, and a null count is 0', async () => {
  const { args } = await requestOf('create_backup.incremental');
  const read = readBackup(decodeMap(args)['backup']);
  const old = writeBackup({ ...read, backup: { ...read.backup, objectCount: null } }, '1.6');
  expect(old.version).toBe('1.6');
  expect(Object.keys(old.data)).not.toContain('parent');
  expect(old.data['object_count']).toBe(0);
});

test.each([
  ['continue_backup.full', 'bdbc1081-d9a5-444f-b987-3886923383d9'],
  ['continue_backup.from-snapshot', undefined],
])('the device of %s is a volume with its host', async (name, id) => {
  const { args } = await requestOf(name);
  const device = readBackupDevice(decodeMap(args)['backup_device']);
  expect(device).toMatchObject({ kind: 'volume', volume: { host: 'refhost@ceph#ceph', sizeGiB: 1 } });
  if (id !== undefined) expect(device).toMatchObject({ volume: { id, nameId: id } });
});

test('a list object gives its objects', async () => {
  const { result } = parseReply(await messageOf(wireFixture('get_log_levels.reply').payload_raw));
  expect(readList(decodeEntity(result), 'LogLevelList').map(({ data }) => data['prefix'])).toContain(
    'cinder.backup.manager',
  );
});

test('fields of a newer version are kept on the way through', () => {
  const newer = {
    'versioned_object.name': 'Backup',
    'versioned_object.namespace': 'cinder',
    'versioned_object.version': '1.9',
    'versioned_object.data': {
      id: 'i',
      project_id: 'p',
      volume_id: 'v',
      colour: {
        'versioned_object.name': 'Paint',
        'versioned_object.namespace': 'cinder',
        'versioned_object.version': '3.0',
        'versioned_object.data': {},
      },
    },
  };
  expect(readBackup(decodeEntity(newer)).backup.id).toBe('i');
  expect(encodeEntity(decodeEntity(newer))).toEqual(newer);
});

test.each([
  [
    'another class',
    { name: 'Volume', version: '1.0', data: {} },
    'expected an object Backup and found an object Volume',
  ],
  ['another major version', { name: 'Backup', version: '2.0', data: {} }, 'only 1.x is understood'],
  [
    'a field of the wrong type',
    { name: 'Backup', version: '1.7', data: { id: 5, project_id: 'p', volume_id: 'v' } },
    'field id',
  ],
  [
    'a time that is none',
    {
      name: 'Backup',
      version: '1.7',
      data: { id: 'i', project_id: 'p', volume_id: 'v', created_at: 'soon' },
    },
    'field created_at: "soon" is not a time',
  ],
])('%s is refused with its name', (_what, { name, version, data }, message) => {
  const primitive = {
    'versioned_object.name': name,
    'versioned_object.namespace': 'cinder',
    'versioned_object.version': version,
    'versioned_object.data': data,
  };
  expect(() => readBackup(decodeEntity(primitive))).toThrow(message);
});

test('the context gives who asks, what to log, and nothing secret to a notification', async () => {
  const { context } = await requestOf('create_backup.full');
  const read = readContext(context);
  expect(read).toMatchObject({
    projectId: 'b879f831e52c450dafd959b27d64fdee',
    userId: 'c5bb3d40a11249fd8e43a30834d289fc',
    isAdmin: false,
    roles: ['reader', 'member'],
    authToken: expect.stringContaining('token'),
    serviceCatalog: [
      { type: 'identity' },
      {
        type: 'object-store',
        endpoints: [{ region: 'RegionOne', publicURL: expect.stringContaining('AUTH_') }],
      },
    ],
  });
  expect(logFieldsOf(read)).toEqual({
    request_id: context['request_id'],
    global_request_id: context['global_request_id'],
    project_id: read.projectId,
    user_id: read.userId,
  });
  expect(JSON.stringify(withoutSecrets(read.items))).not.toContain('token":"');
});

test('the usage in a notification is what Cinder tells of the same backup', async () => {
  const start = await messageOf(wireFixture('notification.backup.create.start').payload_raw);
  const { args, context } = await requestOf('create_backup.full');
  const { backup } = readBackup(decodeMap(args)['backup']);
  expect(JSON.stringify(usageOf(backup))).toBe(JSON.stringify(start['payload']));
  const keys = Object.keys(start).filter((key) => key.startsWith('_context_'));
  expect(Object.keys(renderContext(withoutSecrets(context)))).toEqual(keys);
});

test('the recorded failure becomes an error with its class and text', async () => {
  const { failure } = parseReply(await messageOf(wireFixture('export_record.failure.reply').payload_raw));
  expect(parseFailure(failure ?? '', 'export_record')).toMatchObject({
    code: 'state-invalid',
    message: expect.stringContaining(
      'export_record failed at the other end: Invalid backup: Export record aborted',
    ),
    details: { remoteClass: 'cinder.exception.InvalidBackup' },
  });
});
