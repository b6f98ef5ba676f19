import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { AgentAccess } from '../../src/config/delta-config.ts';
import { createLogger } from '../../src/log.ts';
import { createAgentDirectory, readAgentAccess } from '../../src/main/agent-directory.ts';

const log = createLogger({ level: 'silent' });
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-agents-'));
});
afterEach(() => rm(directory, { recursive: true }));

const config = (changes: Partial<AgentAccess> = {}): AgentAccess => ({
  url: undefined,
  addresses: new Map(),
  port: 8777,
  tls: false,
  tokenFile: undefined,
  caFile: undefined,
  clientCertFile: undefined,
  clientKeyFile: undefined,
  ...changes,
});

test('volumes of one back end share an agent, whatever their pool', async () => {
  const agents = createAgentDirectory(config(), {}, log);
  const first = agents.forHost('node1@ceph#fast');
  expect(agents.forHost('node1@ceph#slow')).toBe(first);
  expect(first.name).toBe('node1@ceph');
  expect(agents.forHost('node2@ceph')).not.toBe(first);
  expect(agents.all().map(({ name }) => name)).toEqual(['node1@ceph', 'node2@ceph']);
  await agents.close();
});

test.each([null, '', 'node1', 'node1#pool', '@ceph'])(
  'a host without a back end is refused in words: %j',
  (host) => {
    const agents = createAgentDirectory(config(), {}, log);
    expect(() => agents.forHost(host)).toThrow(
      expect.objectContaining({
        code: 'agent-unavailable',
        retryable: false,
        message: expect.stringContaining('host@backend'),
      }),
    );
  },
);

test('the token is the first line of its file', async () => {
  const tokenFile = join(directory, 'token');
  await writeFile(tokenFile, 'secret  \nanything else\n');
  expect(await readAgentAccess(config({ tokenFile }))).toMatchObject({ token: 'secret' });
});

test('files that cannot be used are told with the option that names them', async () => {
  const empty = join(directory, 'empty');
  await writeFile(empty, '\nsecret\n');
  await expect(readAgentAccess(config({ tokenFile: empty }))).rejects.toMatchObject({
    code: 'config-invalid',
    message: expect.stringContaining('agent_token_file'),
  });
  await expect(readAgentAccess(config({ caFile: join(directory, 'absent') }))).rejects.toMatchObject({
    code: 'config-invalid',
    message: expect.stringContaining('agent_ca_file'),
  });
});
