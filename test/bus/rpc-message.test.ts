import { deflateSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { decodeEnvelope, encodeEnvelope } from '../../src/bus/envelope.ts';
import { isVersionCompatible, parseReply, parseRequest } from '../../src/bus/rpc-message.ts';
import { createSeenMessages } from '../../src/bus/seen-messages.ts';

test.each([
  ['2.4', '2.0', true],
  ['2.4', '2.4', true],
  ['2.4', '2.5', false],
  ['2.4', '1.9', false],
  ['2.4', '3.0', false],
  ['2.4.1', '2.4.1', true],
  ['2.4', '2.4.1', false],
  ['2.4', '2.3.9', true],
  ['2.4', 'two', false],
])('a server of version %s serves %s: %s', (implemented, requested, expected) => {
  expect(isVersionCompatible(implemented, requested)).toBe(expected);
});

test('a request with the least that is allowed is a cast of version 1.0', () => {
  expect(parseRequest({ method: 'm' })).toEqual({
    method: 'm',
    args: {},
    version: '1.0',
    namespace: undefined,
    context: {},
    uniqueId: undefined,
    call: undefined,
  });
});

test('a call says where the reply goes, and how long its caller waits for a sign of life', () => {
  const base = { method: 'm', _msg_id: 'i', _reply_q: 'reply_1' };
  expect(parseRequest({ ...base, _timeout: null }).call).toEqual({
    messageId: 'i',
    replyQueue: 'reply_1',
    monitorSeconds: null,
  });
  expect(parseRequest({ ...base, _timeout: 30 }).call?.monitorSeconds).toBe(30);
  expect(parseRequest({ ...base, _timeout: 'soon' }).call?.monitorSeconds).toBeNull();
});

test.each([
  [{}, 'names no method'],
  [{ method: 5 }, 'names no method'],
  [{ method: 'm', args: [] }, 'are not an object'],
  [{ method: 'm', version: 2 }, 'is not a text'],
])('the request %j is refused', (message, reason) => {
  expect(() => parseRequest(message)).toThrow(reason);
});

test.each([[{ result: 1 }], [{ _msg_id: 'i', failure: {} }]])('the reply %j is refused', (message) => {
  expect(() => parseReply(message)).toThrow(expect.objectContaining({ code: 'message-invalid' }));
});

const decode = (content: Buffer | string, headers = {}) =>
  decodeEnvelope({ content: Buffer.from(content), properties: { headers } });

test('a message that kombu compressed is read', async () => {
  const content = deflateSync(encodeEnvelope({ method: 'm' }));
  expect(await decode(content, { compression: 'application/x-gzip' })).toEqual({ method: 'm' });
});

test('a body without envelope is the message', async () => {
  expect(await decode('{"method": "m"}')).toEqual({ method: 'm' });
});

test.each([
  ['not JSON', 'hello', {}, 'message-invalid'],
  ['a list', '[1]', {}, 'message-invalid'],
  ['an envelope round no JSON', '{"oslo.version": "2.0", "oslo.message": "hello"}', {}, 'message-invalid'],
  ['an envelope round no text', '{"oslo.version": "2.0", "oslo.message": {}}', {}, 'message-invalid'],
  ['another envelope', '{"oslo.version": "3.0", "oslo.message": "{}"}', {}, 'version-unsupported'],
  ['another compression', '{}', { compression: 'application/x-bz2' }, 'message-invalid'],
  ['broken compression', '{}', { compression: 'application/x-gzip' }, 'message-invalid'],
])('%s is refused', async (_what, content, headers, code) => {
  await expect(decode(content, headers)).rejects.toMatchObject({ code });
});

test('a message is new once, and one without an id always', () => {
  const seen = createSeenMessages();
  expect([
    seen.isNew('a'),
    seen.isNew('b'),
    seen.isNew('a'),
    seen.isNew(undefined),
    seen.isNew(undefined),
  ]).toEqual([true, true, false, true, true]);
});

test('only so many messages are remembered, the oldest is forgotten first', () => {
  const seen = createSeenMessages();
  for (let index = 0; index <= 1000; index += 1) seen.isNew(`m${index}`);
  expect([seen.isNew('m1'), seen.isNew('m0')]).toEqual([false, true]);
});
