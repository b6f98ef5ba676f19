/** The TLS options of [oslo_messaging_rabbit], against a RabbitMQ that wants client certificates. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openBroker } from '../../../src/bus/broker-socket.ts';
import type { BrokerTls } from '../../../src/config/messaging-config.ts';
import { makeCertificates, type CertificateFiles } from '../../support/certificates.ts';
import { freePort } from '../../support/free-ports.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';

let directory: string;
let broker: RabbitServer;
let port: number;
let client: CertificateFiles;
let stranger: CertificateFiles;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-tls-'));
  const own = await makeCertificates(directory, 'authority', ['broker.example', 'client']);
  const other = await makeCertificates(directory, 'stranger', ['client']);
  const server = own.get('broker.example');
  const [ours, theirs] = [own.get('client'), other.get('client')];
  if (server === undefined || ours === undefined || theirs === undefined)
    throw new Error('a certificate is missing');
  [client, stranger] = [ours, theirs];
  port = await freePort();
  broker = await startRabbitMq({
    configuration: `listeners.ssl.1 = 127.0.0.1:${port}
ssl_options.cacertfile = ${server.caFile}
ssl_options.certfile = ${server.certFile}
ssl_options.keyfile = ${server.keyFile}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
`,
  });
});

afterAll(async () => {
  await broker.stop();
  await rm(directory, { recursive: true });
});

async function connect(tls: BrokerTls): Promise<string> {
  const host = { hostname: '127.0.0.1', port, username: 'guest', password: 'guest' };
  const model = await openBroker(
    {
      hosts: [host],
      virtualHost: '/',
      loginMethod: 'PLAIN',
      shuffleHosts: false,
      heartbeatSeconds: 60,
      tls,
      retry: { firstMs: 1000, stepMs: 0, maxMs: 1000 },
    },
    host,
    'cinder-delta',
  );
  await model.close();
  return 'connected';
}

test("the broker's certificate is checked, its name only on request, as oslo.messaging does", async () => {
  expect(await connect({ ...client, verifyHostname: false })).toBe('connected');
  await expect(connect({ ...client, verifyHostname: true })).rejects.toMatchObject({
    code: 'bus-unavailable',
    message: expect.stringMatching(/127\.0\.0\.1.*(?:does not match|not in the cert)/u),
  });
});

test('a broker of another authority is refused', async () => {
  await expect(connect({ ...client, caFile: stranger.caFile, verifyHostname: false })).rejects.toMatchObject({
    code: 'bus-unavailable',
  });
});

test('without an authority nothing is checked', async () => {
  expect(await connect({ ...client, caFile: undefined, verifyHostname: false })).toBe('connected');
});

test('a client certificate that the broker does not know is an error, and a missing file is named', async () => {
  await expect(connect({ ...stranger, caFile: client.caFile, verifyHostname: false })).rejects.toMatchObject({
    code: 'bus-unavailable',
  });
  await expect(connect({ ...client, keyFile: '/nowhere.key', verifyHostname: false })).rejects.toMatchObject({
    message: expect.stringContaining('/nowhere.key'),
  });
});
