import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { startAgentThread } from '../../src/main/agent-thread.ts';

const token = 'a token of the test';
let directory: string;
let lines: string[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-agent-thread-'));
  lines = [];
});
afterEach(() => rm(directory, { recursive: true }));

function logAt(level: string) {
  return createLogger({ level, destination: { write: (line) => void lines.push(line) } });
}

const settings = { backendName: 'file', token, maxStreams: 4, maxSnapshots: 4 };

test('the thread serves the directory to those who have the token, and is gone after close', async () => {
  const agent = await startAgentThread({ ...settings, directory }, logAt('info'));
  const url = `${agent.url}/v1/backends`;
  expect((await fetch(url)).status).toBe(401);
  const answer = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
  expect(JSON.stringify(await answer.json())).toContain('"file"');
  await agent.close();
  await expect(fetch(url)).rejects.toThrow('fetch failed');
});

test('lines of its log appear in the log of the service, at their level', async () => {
  const agent = await startAgentThread({ ...settings, directory }, logAt('info').child({ part: 'agent' }));
  await expect.poll(() => lines.join('')).toContain('agent is listening');
  expect(lines.map((line): unknown => JSON.parse(line))).toContainEqual(
    expect.objectContaining({ level: 'info', part: 'agent', msg: 'agent is listening' }),
  );
  await agent.close();
});

test('a directory that cannot be served is the error of the agent itself', async () => {
  const file = join(directory, 'no-directory');
  await writeFile(file, 'x');
  await expect(startAgentThread({ ...settings, directory: file }, logAt('warn'))).rejects.toMatchObject({
    name: 'BackupError',
    code: 'config-invalid',
  });
});
