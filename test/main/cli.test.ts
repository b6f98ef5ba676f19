import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const cli = fileURLToPath(new URL('../../src/main/cli.ts', import.meta.url));

function run(...args: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, ...args], (error, out, err) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, out, err });
    });
  });
}

test('version and help answer and end with 0', async () => {
  expect(await run('version')).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^cinder-delta \d+\.\d+\.\d+ /),
  });
  expect(await run('--help')).toMatchObject({ code: 0, out: expect.stringContaining('agent') });
  expect(await run('agent', '--help')).toMatchObject({
    code: 0,
    out: expect.stringContaining('--directory'),
  });
});

test('a wrong command line ends with 2 and every fault', async () => {
  expect((await run('restore')).code).toBe(2);
  const { code, err } = await run('service', '--port', 'x', '--codec', 'y');
  expect(code).toBe(2);
  expect(err).toContain('--port is x');
  expect(err).toContain('--codec is y');
});

test('the service starts, says what is in force, and ends with 0 when it is told to', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-cli-'));
  const child = spawn(process.execPath, [cli, '--state-dir', join(directory, 'state'), '--port', '0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  let text = '';
  for await (const piece of child.stdout.setEncoding('utf8')) {
    text += String(piece);
    if (text.includes('cinder-delta is ready')) break;
  }
  const line = text.split('\n').find((each) => each.includes('cinder-delta is ready')) ?? '';
  expect(JSON.parse(line)).toMatchObject({
    node: process.versions.node,
    deflate: expect.any(String),
    delta: expect.stringMatching(/extents|bytes/),
    memoryMiB: 512,
    objectBytes: 25 * 1024 ** 2,
    zeroObjectBytes: 50 * 1024 ** 2,
    url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    agentUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
  });
  child.kill('SIGTERM');
  expect(await exited).toEqual([0, null]);
  await rm(directory, { recursive: true });
});
