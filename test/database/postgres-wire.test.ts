/** How a connection to PostgreSQL comes to TLS, against a server that does no more than to let in. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSecureContext, TLSSocket } from 'node:tls';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openPostgresWire } from '../../src/database/postgres/postgres-wire.ts';
import { makeCertificates } from '../support/certificates.ts';

const letIn = Buffer.concat([
  Buffer.from('R\0\0\0\x08\0\0\0\0', 'latin1'),
  Buffer.from('Z\0\0\0\x05I', 'latin1'),
]);

function refusal(code: string): Buffer {
  const fields = Buffer.from(`SFATAL\0C${code}\0Mno entry for this host\0\0`, 'latin1');
  const head = Buffer.from('E\0\0\0\0', 'latin1');
  head.writeUInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}

let directory: string;
let server: Server | undefined;
/** What each connection began with. */
let begun: ('TLS' | 'plain')[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-postgres-'));
  begun = [];
});
afterEach(async () => {
  server?.close();
  await rm(directory, { recursive: true });
});

function answerLogin(socket: Socket, answer: Buffer): void {
  socket.once('data', () => socket.write(answer));
  socket.on('error', () => undefined);
}

const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' } as const;

/** Has `tls`, and answers a login with `over.TLS` or `over.plain`. */
async function serve(
  tls: 'new' | 'old' | 'none',
  over: { readonly TLS: Buffer; readonly plain: Buffer },
): Promise<number> {
  const files = (await makeCertificates(directory, 'own', ['db'])).get('db');
  if (files === undefined) throw new Error('no certificate was made');
  const [cert, key] = await Promise.all([readFile(files.certFile), readFile(files.keyFile)]);
  const secureContext = createSecureContext({ cert, key, ...(tls === 'old' ? old : {}) });
  server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (first) => {
      const asksForTls = first.readUInt32BE(4) === 80_877_103;
      begun.push(asksForTls ? 'TLS' : 'plain');
      if (asksForTls) socket.write(tls === 'none' ? 'N' : 'S');
      else socket.write(over.plain);
      if (asksForTls && tls !== 'none') {
        answerLogin(new TLSSocket(socket, { isServer: true, secureContext }), over.TLS);
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return address.port;
}

async function logIn(port: number, isTlsOptional: boolean): Promise<void> {
  const wire = await openPostgresWire({
    server: 'here',
    host: '127.0.0.1',
    port,
    socketPath: undefined,
    user: 'cinder',
    password: 'secret',
    database: 'cinder',
    tls: { caFile: undefined, certFile: undefined, keyFile: undefined, verify: 'none' },
    isTlsOptional,
    statementTimeoutMs: 1000,
  });
  await wire.close();
}

test('optional TLS is taken where the server has it', async () => {
  await logIn(await serve('new', { TLS: letIn, plain: letIn }), true);
  expect(begun).toEqual(['TLS']);
});

test.each([
  ['has none', 'none', letIn],
  ['has one that is too old', 'old', letIn],
  ['lets nobody in with it', 'new', refusal('28000')],
] as const)('optional TLS is done without where the server %s', async (_, tls, toTls) => {
  await logIn(await serve(tls, { TLS: toTls, plain: letIn }), true);
  expect(begun).toEqual(['TLS', 'plain']);
});

test('TLS that is not optional is not done without', async () => {
  const port = await serve('none', { TLS: letIn, plain: letIn });
  await expect(logIn(port, false)).rejects.toMatchObject({ code: 'config-invalid' });
  expect(begun).toEqual(['TLS']);
});

test('a wrong password is not sent again without TLS', async () => {
  const port = await serve('new', { TLS: refusal('28P01'), plain: letIn });
  await expect(logIn(port, true)).rejects.toMatchObject({ code: 'config-invalid' });
  expect(begun).toEqual(['TLS']);
});

test('what the server says without TLS is told', async () => {
  const port = await serve('none', { TLS: letIn, plain: refusal('57P03') });
  await expect(logIn(port, true)).rejects.toMatchObject({
    code: 'database-unavailable',
    message: expect.stringContaining('no entry for this host'),
  });
});
