/** Swift and S3 over TLS: which certificates are trusted, and what is said of those that are not. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkStore } from '../../../src/store/check-store.ts';
import { s3ApiOptions, s3Store, swiftStore, tempAuthOptions } from '../../support/cloud-stores.ts';
import { collect, patternBytes } from '../../support/pattern.ts';
import { startSwift, type SwiftServer } from '../../support/swift-server.ts';
import { startTlsFront, type TlsFront } from '../../support/tls-front.ts';

const live = new AbortController().signal;
const options = { signal: live };
let server: SwiftServer;
let front: TlsFront;
let misnamed: TlsFront;

beforeAll(async () => {
  server = await startSwift({ proxyDefault: '' });
  front = await startTlsFront(server.port);
  misnamed = await startTlsFront(server.port, 'DNS:elsewhere.test');
});
afterAll(async () => {
  await front.close();
  await misnamed.close();
  await server.stop();
});

type Trust = { readonly caCertFile?: string; readonly insecure?: boolean };
const kinds = [
  {
    name: 'swift',
    // TempAuth gives storage URLs of its own scheme, so the storage URL is the configured one.
    open: async (port: number, trust: Trust) => {
      const login = await fetch(server.authUrl, {
        headers: { 'x-auth-user': 'test:tester', 'x-auth-key': 'testing' },
      });
      const caller = {
        authToken: login.headers.get('x-auth-token') ?? '',
        projectId: 'test',
        serviceCatalog: [],
      };
      const url = `https://127.0.0.1:${port}/v1/TEMPAUTH_`;
      const perUser = { auth: 'per_user', authUrl: undefined, url, caCertFile: undefined } as const;
      return swiftStore(tempAuthOptions('', { ...perUser, ...trust }), { caller });
    },
    ca: 'backup_swift_ca_cert_file',
  },
  {
    name: 's3',
    open: async (port: number, { caCertFile, insecure = false }: Trust) =>
      await Promise.resolve(
        s3Store(s3ApiOptions(`https://127.0.0.1:${port}`, { caCertFile, verifyTls: !insecure })),
      ),
    ca: 'backup_s3_ca_cert_file',
  },
] as const;

describe.each(kinds)('$name over TLS', ({ open, ca }) => {
  test('works with the CA file, also for bodies whose payload is not signed', async () => {
    const store = await open(front.port, { caCertFile: front.caFile });
    const container = `tls-${randomUUID()}`;
    const bytes = patternBytes(3_000_000, 1);
    await store.ensureContainer(container, live);
    await store.put(container, 'a-00001', bytes, options);
    expect((await collect((await store.get(container, 'a-00001', options)).body)).equals(bytes)).toBe(true);
    await store.close();
  });

  test('works without checking where that is switched off', async () => {
    const store = await open(misnamed.port, { insecure: true });
    await store.ensureContainer(`tls-${randomUUID()}`, live);
    await store.close();
  });

  type Wrong = { readonly what: string; readonly words: string; port(): number; ca(): string | undefined };
  const wrong: readonly Wrong[] = [
    {
      what: 'an authority that is not known',
      words: 'not known here',
      port: () => front.port,
      ca: () => undefined,
    },
    {
      what: 'a certificate for another name',
      words: 'for another name',
      port: () => misnamed.port,
      ca: () => misnamed.caFile,
    },
    { what: 'the CA of another', words: ca, port: () => front.port, ca: () => misnamed.caFile },
    {
      what: 'a CA file that is not there',
      words: '/nowhere/ca.pem cannot be read',
      port: () => front.port,
      ca: () => '/nowhere/ca.pem',
    },
    {
      what: 'a server that speaks no TLS',
      words: 'does not speak TLS',
      port: () => server.port,
      ca: () => front.caFile,
    },
  ];
  test.each(wrong)('says what is wrong with $what', async ({ words, ...end }) => {
    const caCertFile = end.ca();
    const store = await open(end.port(), caCertFile === undefined ? {} : { caCertFile });
    const found = await checkStore(store, 'any', live);
    expect(found).toEqual({ ready: false, findings: [expect.stringContaining(words)] });
    await store.close();
  });
});
