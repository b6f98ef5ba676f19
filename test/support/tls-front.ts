/** TLS before a plain server, with certificates of an authority of its own (made by openssl). */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { promisify } from 'node:util';

export type TlsFront = {
  readonly port: number;
  /** The authority's certificate. */
  readonly caFile: string;
  close(): Promise<void>;
};

const run = promisify(execFile);

async function openssl(...args: string[]): Promise<void> {
  await run('openssl', args);
}

/** `names` is the subjectAltName: `IP:127.0.0.1`, `DNS:swift.test`. */
export async function startTlsFront(targetPort: number, names = 'IP:127.0.0.1'): Promise<TlsFront> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-tls-'));
  const at = (name: string) => join(directory, name);
  await writeFile(at('names'), `subjectAltName=${names}\n`);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-subj',
    '/CN=test authority',
    '-days',
    '2',
  );
  await openssl('req', ...key, '-keyout', at('server.key'), '-out', at('server.csr'), '-subj', '/CN=server');
  const signer = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-extfile', at('names')];
  await openssl('x509', '-req', '-in', at('server.csr'), ...signer, '-out', at('server.pem'), '-days', '2');
  const server = createServer(
    { cert: await readFile(at('server.pem')), key: await readFile(at('server.key')) },
    (client) => {
      const upstream = connect(targetPort, '127.0.0.1');
      client.on('error', () => upstream.destroy());
      upstream.on('error', () => client.destroy());
      client.on('close', () => upstream.destroy());
      client.pipe(upstream).pipe(client);
    },
  );
  server.on('tlsClientError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port was given');
  return {
    port: address.port,
    caFile: at('ca.pem'),
    async close() {
      server.close();
      await rm(directory, { recursive: true });
    },
  };
}
