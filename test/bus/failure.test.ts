import { expect, test } from 'vitest';
import { cinderError } from '../../src/bus/cinder-exceptions.ts';
import { noSuchMethod, parseFailure, renderFailure, unsupportedVersion } from '../../src/bus/failure.ts';
import { decodeEnvelope } from '../../src/bus/envelope.ts';
import { parseReply } from '../../src/bus/rpc-message.ts';
import { BackupError, errorCodes, isErrorCode } from '../../src/model/errors.ts';
import { wireFixture } from '../support/wire-fixtures.ts';

test("a Cinder exception of ours has the class, text, args and kwargs of Python's own", async () => {
  const recorded = parseReply(
    await decodeEnvelope({
      content: Buffer.from(wireFixture('export_record.failure.reply').payload_raw),
      properties: {},
    }),
  );
  const { tb: _theirTrace, ...theirs } = JSON.parse(recorded.failure ?? '');
  const { tb, ...ours } = JSON.parse(
    renderFailure(cinderError('InvalidBackup', { reason: theirs.kwargs.reason })),
  );
  expect(ours).toEqual(theirs);
  expect(tb).toHaveLength(1);
});

test('every code of ours becomes an exception that the peer knows, with the sentence in it', () => {
  for (const code of Object.keys(errorCodes).filter(isErrorCode)) {
    const failure = JSON.parse(renderFailure(new BackupError(code, `because of ${code}`)));
    expect(failure).toMatchObject({
      module: 'cinder.exception',
      message: expect.stringContaining(`because of ${code}`),
    });
    expect(failure.args).toEqual([failure.message]);
    expect(failure.kwargs.code).toBeTypeOf('number');
  }
});

test('what is no error of ours is a CinderException', () => {
  expect(JSON.parse(renderFailure(new TypeError('x is undefined')))).toMatchObject({
    class: 'CinderException',
    message: expect.stringContaining('x is undefined'),
  });
  expect(JSON.parse(renderFailure('thrown text'))).toMatchObject({ class: 'CinderException' });
});

test("refusals have the class and text of oslo.messaging's dispatcher", () => {
  expect(JSON.parse(unsupportedVersion('2.9', 'create_backup'))).toMatchObject({
    class: 'UnsupportedVersion',
    module: 'oslo_messaging.rpc.dispatcher',
    message: 'Endpoint does not support RPC version 2.9. Attempted method: create_backup',
  });
  expect(JSON.parse(noSuchMethod('dance'))).toMatchObject({
    class: 'NoSuchMethod',
    message: 'Endpoint does not support RPC method dance',
  });
});

test.each([
  ['not JSON', 'peer-failed'],
  ['[]', 'peer-failed'],
  ['{"class": "SnapshotNotFound", "module": "cinder.exception", "message": "m"}', 'not-found'],
  ['{"class": "VolumeTypeNotFound", "module": "cinder.exception", "message": "m"}', 'not-found'],
  ['{"class": "KeyError", "module": "builtins", "message": "m"}', 'peer-failed'],
])('the failure %s of a peer is %s', (text, code) => {
  expect(parseFailure(text, 'do_it')).toMatchObject({
    code,
    message: expect.stringMatching(/^do_it failed at the other end/u),
  });
});
