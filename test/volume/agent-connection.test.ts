/** Who may talk to whom: certificates, addresses, and answers that are none. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createAgent } from '../../src/agent/agent.ts';
import { createFileBackend } from '../../src/agent/file-backend.ts';
import { createLogger } from '../../src/log.ts';
import { createAgentClient } from '../../src/volume/agent-client.ts';
import type { AgentAccess } from '../../src/volume/agent-connection.ts';
import { jsonReply, startFakeAgent, type AgentReply } from '../support/fake-agent.ts';
import { expectSameBytes, makeVolumeFile, patternBytes } from '../support/random-volume.ts';

const volume = 'volume-11111111-2222-4333-8444-555555555555';
const never = new AbortController().signal;
const log = createLogger({ level: 'silent' });
const retry = { attempts: 3, firstDelayMs: 1, maxDelayMs: 2 };

const pem = (name: string) => readFile(new URL(`../fixtures/tls/${name}`, import.meta.url), 'utf8');

async function startTlsAgent() {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-tls-'));
  const agent = await createAgent({
    backends: [await createFileBackend({ name: 'files', directory, log })],
    access: { tls: { cert: await pem('server.pem'), key: await pem('server.key'), ca: await pem('ca.pem') } },
    host: '127.0.0.1',
    port: 0,
    readerThreads: 1,
    log,
  });
  onTestFinished(async () => {
    await agent.close();
    await rm(directory, { recursive: true });
  });
  return { url: agent.url, directory };
}

function clientOf(url: string, access: AgentAccess = {}) {
  const client = createAgentClient({ url, access, log, retry });
  onTestFinished(() => client.close());
  return client;
}

/** Node's server drops a client whose certificate it does not accept without saying so. */
const cutOff = { code: 'agent-unavailable', message: expect.stringContaining('accepts our certificate') };

describe('over TLS', () => {
  it('a client with a certificate of the authority makes calls and restores', async () => {
    const { url, directory } = await startTlsAgent();
    const tls = { ca: await pem('ca.pem'), cert: await pem('client.pem'), key: await pem('client.key') };
    const client = clientOf(url, { tls });
    const sizeBytes = 3 * 1024 * 1024 + 512;
    await client.createVolume('files', volume, sizeBytes, never);
    const target = await client.target({ backend: 'files', volume, lengthBytes: sizeBytes, signal: never });
    await target.writeData(0, patternBytes(0, sizeBytes, 7));
    await target.finish();
    await makeVolumeFile(join(directory, 'truth'), { sizeBytes, generation: 7 });
    await expectSameBytes(join(directory, volume), join(directory, 'truth'));
  });

  it('a client with a certificate of a stranger is cut off, and told to look at its certificate', async () => {
    const { url } = await startTlsAgent();
    const tls = { ca: await pem('ca.pem'), cert: await pem('stranger.pem'), key: await pem('stranger.key') };
    const client = clientOf(url, { tls });
    await expect(client.backends(never)).rejects.toMatchObject(cutOff);
    await expect(
      client
        .target({ backend: 'files', volume, lengthBytes: 512, signal: never })
        .then((target) => target.finish()),
    ).rejects.toMatchObject(cutOff);
  });

  it('a client without a certificate is cut off, and told to look at its certificate', async () => {
    const { url } = await startTlsAgent();
    const client = clientOf(url, { tls: { ca: await pem('ca.pem') } });
    await expect(client.backends(never)).rejects.toMatchObject(cutOff);
  });

  it('an agent of an authority that we do not trust is denied', async () => {
    const { url } = await startTlsAgent();
    const client = clientOf(url, {
      tls: { cert: await pem('client.pem'), key: await pem('client.key') },
    });
    await expect(client.backends(never)).rejects.toMatchObject({
      code: 'access-denied',
      message: expect.stringContaining('check the certificates'),
    });
  });
});

describe('an address', () => {
  it('that is not one is refused before anything is sent, and its password not shown', () => {
    for (const url of [
      '',
      'agent:9000',
      'ftp://agent/',
      'http://me:hunter2@agent',
      'http://agent/?token=hunter2',
    ]) {
      let message = '';
      try {
        createAgentClient({ url, access: {}, log });
      } catch (error) {
        expect(error).toMatchObject({ code: 'config-invalid' });
        message = String(error);
      }
      expect(message).toContain('agent address');
      expect(message).not.toContain('hunter2');
    }
  });

  it('may have a path in front of the protocol', async () => {
    const agent = await startFakeAgent(() => jsonReply({ backends: [] }));
    onTestFinished(() => agent.close());
    await clientOf(`${agent.url}/storage/`).backends(never);
    expect(agent.asks[0]?.path).toBe('/storage/v1/backends');
  });

  it('behind which something else than HTTP answers is agent-failed, not tried again', async () => {
    let connections = 0;
    const server = net.createServer((socket) => {
      connections += 1;
      socket.on('error', () => undefined);
      socket.end('220 mail.example.org ESMTP\r\n', () => socket.destroy());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => new Promise<void>((resolve) => void server.close(() => resolve())));
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    await expect(clientOf(`http://127.0.0.1:${port}`).backends(never)).rejects.toMatchObject({
      code: 'agent-failed',
    });
    expect(connections).toBe(1);
  });
});

describe('an answer', () => {
  const answers: Record<string, [AgentReply, string]> = {
    'of 401 without an error': [{ status: 401, body: 'no' }, 'access-denied'],
    'of 403 in HTML': [{ status: 403, body: '<h1>Forbidden</h1>' }, 'access-denied'],
    'of 404 in HTML, which is no absent volume': [
      { status: 404, body: '<h1>Not Found</h1>' },
      'agent-failed',
    ],
    'of 404 with the error of an agent': [
      jsonReply({ error: { code: 'not-found', message: 'gone' } }, 404),
      'not-found',
    ],
    'of 500 with a bug of the agent, which is not ours': [
      jsonReply({ error: { code: 'bug', message: 'oops' } }, 500),
      'agent-failed',
    ],
    'of 500 with an unknown code': [jsonReply({ error: { code: 'zap', message: 'x' } }, 500), 'agent-failed'],
    'of 500 with an error of another form': [jsonReply({ error: 'oops' }, 500), 'agent-failed'],
    'of 503': [{ status: 503 }, 'agent-unavailable'],
    'of 302': [{ status: 302, headers: { location: 'http://elsewhere/' } }, 'agent-failed'],
    'in HTML': [{ body: '<html></html>' }, 'agent-failed'],
    'of other JSON': [jsonReply({ volumes: [] }), 'agent-failed'],
    'with a hostile name': [
      jsonReply({
        backends: [{ name: '../x', type: 'file', delta: 'none', restore: true, create_volume: true }],
      }),
      'agent-failed',
    ],
    'that is cut': [
      { headers: { 'content-length': '100' }, body: '{"backends":', ending: 'reset' },
      'agent-unavailable',
    ],
  };

  for (const [name, [reply, code]] of Object.entries(answers)) {
    it(`${name} is ${code}`, async () => {
      const agent = await startFakeAgent(() => reply);
      onTestFinished(() => agent.close());
      await expect(clientOf(agent.url).backends(never)).rejects.toMatchObject({ code });
      expect(agent.asks).toHaveLength(code === 'agent-unavailable' ? 3 : 1);
    });
  }

  it('that is too long is not read to its end', async () => {
    const agent = await startFakeAgent(() => jsonReply({ backends: [], more: 'x'.repeat(33 * 1024 * 1024) }));
    onTestFinished(() => agent.close());
    await expect(clientOf(agent.url).backends(never)).rejects.toMatchObject({
      code: 'agent-failed',
      message: expect.stringContaining('longer than'),
    });
  });

  it('comes after a restart of the agent, between two attempts', async () => {
    const agent = await startFakeAgent((_ask, index) =>
      index === 0 ? { body: '', ending: 'reset' } : jsonReply({ backends: [] }),
    );
    onTestFinished(() => agent.close());
    expect(await clientOf(agent.url).backends(never)).toEqual([]);
  });
});

describe('creating a volume', () => {
  it('is not tried again, since it may have been done', async () => {
    const agent = await startFakeAgent(() => ({ status: 503 }));
    onTestFinished(() => agent.close());
    await expect(clientOf(agent.url).createVolume('files', volume, 512, never)).rejects.toMatchObject({
      code: 'agent-unavailable',
    });
    expect(agent.asks).toHaveLength(1);
  });
});

describe('a closed client', () => {
  it('refuses calls, and leaves nothing of its own open', async () => {
    const agent = await startFakeAgent(() => jsonReply({ backends: [] }));
    onTestFinished(() => agent.close());
    const client = createAgentClient({ url: agent.url, access: {}, log, retry });
    await Promise.all(Array.from({ length: 5 }, () => client.backends(never)));
    await client.close();
    await expect(client.backends(never)).rejects.toMatchObject({ code: 'cancelled' });
    await expect.poll(() => agent.openSockets(), { timeout: 15_000 }).toBe(0);
  });
});
