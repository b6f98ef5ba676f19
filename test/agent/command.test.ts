import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CommandError, runCommand } from '../../src/agent/command.ts';

const timeoutMs = 20_000;

test('gives back what a program writes, with no environment but its own', async () => {
  process.env['SECRET_OF_THE_AGENT'] = 'x';
  const output = await runCommand({ program: 'env', args: [], environment: { LVM: 'y' }, timeoutMs });
  delete process.env['SECRET_OF_THE_AGENT'];
  const lines = output.trim().split('\n');
  expect(lines.filter((line) => !line.startsWith('PATH='))).toEqual(['LC_ALL=C', 'LVM=y']);
});

test('hands arguments over as they are, whatever a shell would make of them', async () => {
  const args = ['%s|', '$HOME', '`id`', '; rm x', 'two words', ''];
  expect(await runCommand({ program: 'printf', args, timeoutMs })).toBe('$HOME|`id`|; rm x|two words||');
});

test('writes into an open file where it is told to', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-command-'));
  const path = join(directory, 'output');
  const file = await open(path, 'w');
  const output = await runCommand({ program: 'printf', args: ['abc'], outputFd: file.fd, timeoutMs });
  await file.close();
  expect([output, await readFile(path, 'utf8')]).toEqual(['', 'abc']);
  await rm(directory, { recursive: true });
});

test('tells how a program failed, and what it said', async () => {
  const failing = runCommand({ program: 'ls', args: ['/nonexistent'], timeoutMs });
  await expect(failing).rejects.toBeInstanceOf(CommandError);
  await expect(failing).rejects.toMatchObject({
    exitCode: 2,
    complaint: expect.stringMatching(/nonexistent.*No such file/),
  });
});

test('a program that is not there is told with its errno', async () => {
  const absent = runCommand({ program: 'no-such-program', args: [], timeoutMs });
  await expect(absent).rejects.toMatchObject({ code: 'ENOENT' });
});

test('ends a program that takes too long, and one that nobody waits for any more', async () => {
  const start = performance.now();
  const late = runCommand({ program: 'sleep', args: ['60'], timeoutMs: 200 });
  await expect(late).rejects.toMatchObject({ exitCode: null, signal: 'SIGTERM' });
  const signal = AbortSignal.timeout(200);
  const given = runCommand({ program: 'sleep', args: ['60'], timeoutMs, signal });
  await expect(given).rejects.toThrow(/aborted/i);
  expect(performance.now() - start).toBeLessThan(20_000);
});
