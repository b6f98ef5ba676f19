import dns from 'node:dns';
import { once } from 'node:events';
import { readFile, readdir } from 'node:fs/promises';
import http from 'node:http';
import { Agent as HttpAgent, request } from 'undici';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { streamContentType } from '../../src/protocol/frames.ts';
import {
  call,
  codeOf,
  freshVolumeName,
  startAgent,
  volumesPath,
  type RunningAgent,
} from '../support/running-agent.ts';

const mebibyte = 1024 * 1024;

describe('agent application', () => {
  let agent: RunningAgent;
  beforeAll(async () => {
    agent = await startAgent();
  });
  afterAll(() => agent.close());

  test('says what it serves', async () => {
    expect(await call(agent, 'GET', '/v1/backends')).toEqual({
      status: 200,
      body: {
        backends: [{ name: 'files', type: 'file', delta: 'bytes', restore: true, create_volume: true }],
      },
    });
  });

  test('makes, shows, lists and grows a volume', async () => {
    const name = freshVolumeName();
    const made = await call(agent, 'POST', volumesPath(), { name, size_bytes: mebibyte });
    expect(made).toMatchObject({ status: 201, body: { name, size_bytes: mebibyte } });
    expect(await call(agent, 'POST', volumesPath(), { name, size_bytes: mebibyte })).toMatchObject({
      status: 409,
    });
    expect(
      await call(agent, 'POST', `${volumesPath(name)}/resize`, { size_bytes: 2 * mebibyte }),
    ).toMatchObject({
      status: 200,
      body: { size_bytes: 2 * mebibyte },
    });
    const shrunk = await call(agent, 'POST', `${volumesPath(name)}/resize`, { size_bytes: 1 });
    expect([shrunk.status, codeOf(shrunk)]).toEqual([400, 'message-invalid']);
    const shown = await call(agent, 'GET', volumesPath(name));
    expect(shown).toMatchObject({ status: 200, body: { size_bytes: 2 * mebibyte, snapshots: [] } });
    const listed = await call(agent, 'GET', volumesPath());
    expect(JSON.stringify(listed.body)).toContain(name);
  });

  test('makes a snapshot once and removes it as often as it is asked', async () => {
    const name = freshVolumeName();
    await call(agent, 'POST', volumesPath(), { name, size_bytes: mebibyte });
    const snapshot = `snapshot-${name.slice('volume-'.length)}`;
    const first = await call(agent, 'POST', `${volumesPath(name)}/snapshots`, { name: snapshot });
    expect(first).toMatchObject({ status: 200, body: { name: snapshot, size_bytes: mebibyte } });
    expect(await call(agent, 'POST', `${volumesPath(name)}/snapshots`, { name: snapshot })).toEqual(first);
    const path = `${volumesPath(name)}/snapshots/${snapshot}`;
    expect(await call(agent, 'DELETE', path)).toEqual({ status: 204, body: undefined });
    expect(await call(agent, 'DELETE', path)).toEqual({ status: 204, body: undefined });
  });

  test('answers not-found for what is not there', async () => {
    const name = freshVolumeName();
    const answers = [
      await call(agent, 'GET', '/v1/nothing'),
      await call(agent, 'GET', '/v1/backends/other/volumes'),
      await call(agent, 'GET', volumesPath(name)),
      await call(agent, 'POST', `${volumesPath(name)}/snapshots`, { name: `snapshot-${name.slice(7)}` }),
      await call(agent, 'PUT', `${volumesPath(name)}/data`, 'x', 'application/octet-stream'),
    ];
    for (const answer of answers) expect([answer.status, codeOf(answer)]).toEqual([404, 'not-found']);
  });

  test('refuses hostile names before they reach a path', async () => {
    const uuid = freshVolumeName().slice('volume-'.length);
    const names = [
      '..',
      '%2e%2e',
      '..%2f..%2fetc%2fpasswd',
      `volume-${uuid}%2f..%2f.snapshots`,
      `volume-${uuid}%00`,
      `volume-${uuid}%0a`,
      `volume-${uuid.toUpperCase().replace(/^./, 'A')}`,
      '%c3%a9'.repeat(20),
      `volume-${uuid}'$(touch%20x)'`,
      `-rf`,
      'v'.repeat(5000),
      '%',
      '%zz',
    ];
    const before = await readdir(agent.directory);
    for (const name of names) {
      for (const [method, path] of [
        ['GET', `/v1/backends/files/volumes/${name}`],
        ['DELETE', `/v1/backends/files/volumes/volume-${uuid}/snapshots/${name}`],
        ['GET', `/v1/backends/${name}/volumes`],
        ['POST', `/v1/backends/files/volumes/${name}/snapshots`],
        ['PUT', `/v1/backends/files/volumes/${name}/data`],
      ] as const) {
        const answer = await raw(agent, method, path);
        expect(answer.status, `${method} ${path}`).toBeGreaterThanOrEqual(400);
        expect(answer.status, `${method} ${path}`).toBeLessThan(500);
        expect(['message-invalid', 'not-found', 'limit-exceeded']).toContain(answer.code);
      }
    }
    expect(await readdir(agent.directory)).toEqual(before);
  });

  test.each([
    ['no JSON', '{"name":', 'application/json', 400],
    ['nothing', '', 'application/json', 400],
    ['a list', '[]', 'application/json', 400],
    ['another content type', '<a/>', 'application/xml', 400],
    ['no size', '{"name":"NAME"}', 'application/json', 400],
    ['a size of zero', '{"name":"NAME","size_bytes":0}', 'application/json', 400],
    ['a negative size', '{"name":"NAME","size_bytes":-1}', 'application/json', 400],
    ['a broken size', '{"name":"NAME","size_bytes":1.5}', 'application/json', 400],
    ['a size beyond 2^53', '{"name":"NAME","size_bytes":9007199254740993}', 'application/json', 400],
    ['a size as text', '{"name":"NAME","size_bytes":"1"}', 'application/json', 400],
    ['a field too many', '{"name":"NAME","size_bytes":1,"path":"/etc"}', 'application/json', 400],
    ['a prototype', '{"name":"NAME","size_bytes":1,"__proto__":{"x":1}}', 'application/json', 400],
    ['a name with a path', '{"name":"../NAME","size_bytes":1}', 'application/json', 400],
    ['a name with a line break', '{"name":"NAME\\n","size_bytes":1}', 'application/json', 400],
    ['a body too long', JSON.stringify({ name: 'x'.repeat(300_000) }), 'application/json', 413],
  ])('refuses a volume described by %s', async (_title, body, contentType, status) => {
    const name = freshVolumeName();
    const answer = await call(agent, 'POST', volumesPath(), body.replace('NAME', name), contentType);
    expect(answer.status).toBe(status);
    expect(codeOf(answer)).toBe(status === 413 ? 'limit-exceeded' : 'message-invalid');
    expect(await readdir(agent.directory)).not.toContain(name);
  });

  test('names the field that is wrong', async () => {
    const answer = await call(agent, 'POST', volumesPath(), { name: 'x', size_bytes: 1 });
    expect(JSON.stringify(answer.body)).toContain('name: must be volume-<uuid>');
  });
});

describe('access to the agent', () => {
  test('with a token nothing is answered without it', async () => {
    const agent = await startAgent({ access: { token: 'a secret of some length' } });
    try {
      const name = freshVolumeName();
      expect((await call(agent, 'GET', '/v1/backends')).status).toBe(200);
      for (const authorization of [
        undefined,
        'Bearer ',
        'Bearer a secret of some lengtH',
        'Bearer a secret of some length and more',
        'Basic YSBzZWNyZXQgb2Ygc29tZSBsZW5ndGg=',
        'a secret of some length',
      ]) {
        for (const [method, path] of [
          ['GET', '/v1/backends'],
          ['GET', '/v1/nothing'],
          ['GET', volumesPath(name)],
          ['POST', `${volumesPath(name)}/delta`],
          ['PUT', `${volumesPath(name)}/data`],
        ] as const) {
          const headers = authorization === undefined ? {} : { authorization };
          const answer = await raw(agent, method, path, headers);
          expect([answer.status, answer.code], `${method} ${path} ${authorization}`).toEqual([
            401,
            'access-denied',
          ]);
        }
      }
    } finally {
      await agent.close();
    }
  });

  test('without a token only programs of this machine are answered, not pages in its browsers', async () => {
    const agent = await startAgent();
    try {
      const { host, port } = new URL(agent.url);
      const foreign = [
        { host: `rebind.example.org:${port}` },
        { host: '10.0.0.7' },
        { host, origin: 'http://example.org' },
        { host, origin: `http://localhost:${port}` },
        { host, origin: 'null' },
      ];
      for (const headers of foreign) {
        for (const [method, path] of [
          ['GET', '/v1/backends'],
          ['POST', volumesPath()],
          ['GET', '/v1/nothing'],
        ] as const) {
          const answer = await raw(agent, method, path, headers);
          expect([answer.status, answer.code], `${path} ${JSON.stringify(headers)}`).toEqual([
            401,
            'access-denied',
          ]);
        }
      }
      for (const headers of [{ host: `localhost:${port}` }, { host: '[::1]' }, { host, origin: agent.url }]) {
        expect((await raw(agent, 'GET', '/v1/backends', headers)).status).toBe(200);
      }
    } finally {
      await agent.close();
    }
  });

  test('with a token the name that the agent was called by does not matter', async () => {
    const agent = await startAgent({ access: { token: 'a secret of some length' } });
    try {
      const headers = { host: 'storage-1.example.org', authorization: 'Bearer a secret of some length' };
      expect((await raw(agent, 'GET', '/v1/backends', headers)).status).toBe(200);
    } finally {
      await agent.close();
    }
  });

  test('with an authority only its clients get through', async () => {
    const ca = await pem('ca.pem');
    const agent = await startAgent({
      access: { tls: { cert: await pem('server.pem'), key: await pem('server.key'), ca } },
    });
    const as = async (who: { cert: string; key: string } | undefined) => {
      const dispatcher = new HttpAgent({ connect: { ca, ...who } });
      try {
        const answer = await request(`${agent.url}/v1/backends`, { dispatcher });
        await answer.body.dump();
        return answer.statusCode;
      } finally {
        await dispatcher.close();
      }
    };
    try {
      expect(agent.url).toMatch(/^https:/);
      expect(await as({ cert: await pem('client.pem'), key: await pem('client.key') })).toBe(200);
      await expect(as(undefined)).rejects.toThrow();
      await expect(as({ cert: await pem('stranger.pem'), key: await pem('stranger.key') })).rejects.toThrow();
    } finally {
      await agent.close();
    }
  });
});

test('on every address of a name a busy agent refuses before it takes a body', async () => {
  const both = [
    { address: '127.0.0.1', family: 4 },
    { address: '::1', family: 6 },
  ];
  vi.spyOn(dns, 'lookup').mockImplementation((...given: readonly unknown[]) => {
    const [host, done] = [given[0], given.at(-1)];
    const found = host === 'localhost' ? both : both.filter(({ address }) => address === host);
    if (typeof done === 'function') done(null, found);
  });
  const agent = await startAgent({ host: 'localhost', maxStreams: 0 }).finally(() => vi.restoreAllMocks());
  try {
    for (const { address } of both) {
      const { port } = new URL(agent.url);
      const headers = { expect: '100-continue', 'content-type': streamContentType, host: 'localhost' };
      const path = `${volumesPath(freshVolumeName())}/data`;
      const outgoing = http.request({ host: address, port, method: 'PUT', path, headers });
      const events: unknown[] = [];
      outgoing.on('continue', () => events.push('continue'));
      outgoing.flushHeaders();
      const [answer] = (await once(outgoing, 'response')) as [http.IncomingMessage];
      events.push(answer.statusCode);
      outgoing.on('error', () => {}).destroy();
      expect(events, address).toEqual([503]);
    }
  } finally {
    await agent.close();
  }
});

function pem(file: string): Promise<string> {
  return readFile(new URL(`../fixtures/tls/${file}`, import.meta.url), 'utf8');
}

/** A request as it stands: no client that normalises the path. */
function raw(
  agent: RunningAgent,
  method: string,
  path: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; code: unknown }> {
  const { hostname, port } = new URL(agent.url);
  return new Promise((resolve, reject) => {
    const outgoing = http.request({ hostname, port, method, path, headers }, (answer) => {
      const pieces: Buffer[] = [];
      answer.on('data', (piece: Buffer) => pieces.push(piece));
      answer.on('end', () => {
        const body: unknown = JSON.parse(Buffer.concat(pieces).toString());
        resolve({ status: answer.statusCode ?? 0, code: codeOf({ status: 0, body }) });
      });
      answer.on('error', reject);
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}
