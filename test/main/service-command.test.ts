import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { parseAgentFlags } from '../../src/main/agent-command.ts';
import { parseServiceFlags } from '../../src/main/service-command.ts';
import { standaloneDefaults } from '../../src/main/standalone.ts';

const composeFile = z.object({
  services: z.object({ 'cinder-delta': z.object({ command: z.array(z.string()) }) }),
});

let directory: string;
let tokenFile: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-flags-'));
  tokenFile = join(directory, 'token');
  await writeFile(tokenFile, 'a secret\n');
});
afterAll(() => rm(directory, { recursive: true }));

test('without flags everything has a default and only this machine is served', async () => {
  expect(await parseServiceFlags([])).toEqual({
    stateDir: 'state',
    host: '127.0.0.1',
    port: 8776,
    logLevel: 'info',
    options: { ...standaloneDefaults, token: undefined },
  });
});

test('every flag is read', async () => {
  const args = '--state-dir=/s --host 127.0.0.2 --port 0 --codec zstd --object-bytes 65536 --block-size 4096';
  const more = '--merge-gap-bytes 0 --memory-mib 64 --max-operations 2 --drain-seconds 5 --zlib-effort size';
  const read = await parseServiceFlags([...args.split(' '), ...more.split(' '), '--token-file', tokenFile]);
  expect(read).toMatchObject({
    stateDir: '/s',
    host: '127.0.0.2',
    port: 0,
    options: {
      codec: 'zstd',
      objectBytes: 65_536,
      blockSize: 4096,
      mergeGapBytes: 0,
      memoryBytes: 64 * 1024 ** 2,
      maxOperations: 2,
      drainMs: 5000,
      zlibEffort: 'size',
      token: 'a secret',
    },
  });
});

test('the gap that is merged follows the block size', async () => {
  const { options } = await parseServiceFlags(['--block-size', '65536']);
  expect(options.mergeGapBytes).toBe(65_536);
});

test.each([
  ['--block-size', 512, 4 * 1024 ** 2],
  ['--merge-gap-bytes', 0, 64 * 1024 ** 2],
])('%s is from %d to %d, as agents take it', async (flag, least, most) => {
  const read = (value: number) => parseServiceFlags([flag, String(value), '--object-bytes', '4194304']);
  for (const value of [least, most]) await expect(read(value)).resolves.toBeDefined();
  await expect(read(2 * most)).rejects.toThrow(`from ${least} to ${most}`);
});

test('everything that is wrong is told at once', async () => {
  const args =
    '--port 99999 --codec lzma --block-size 1000 --object-bytes 1001 --memory-mib x --unknown 1 extra';
  const error = await parseServiceFlags(args.split(' ')).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: 'config-invalid' });
  for (const part of [
    '--port',
    '--codec',
    '--block-size',
    '--object-bytes',
    '--memory-mib',
    '--unknown',
    'extra',
  ]) {
    expect(String(error)).toContain(part);
  }
});

test('another address than loopback needs a token, and the word that it may be readable', async () => {
  const away = ['--host', '0.0.0.0'];
  await expect(parseServiceFlags([...away, '--allow-plaintext'])).rejects.toThrow(/--token-file/);
  const withToken = [...away, '--token-file', tokenFile];
  await expect(parseServiceFlags(withToken)).rejects.toThrow(/--allow-plaintext/);
  const { host } = await parseServiceFlags([...withToken, '--allow-plaintext']);
  expect(host).toBe('0.0.0.0');
});

test('docker-compose.yml passes flags that the service takes', async () => {
  const text = await readFile(new URL('../../docker-compose.yml', import.meta.url), 'utf8');
  const { services } = composeFile.parse(parse(text));
  const [command, ...args] = services['cinder-delta'].command;
  expect(command).toBe('service');
  const given = args.map((arg) => arg.replace('/run/secrets/token', tokenFile));
  expect(await parseServiceFlags(given)).toMatchObject({
    host: '0.0.0.0',
    stateDir: '/var/lib/cinder-delta',
  });
});

test('a token file that is absent or empty is refused', async () => {
  await expect(parseServiceFlags(['--token-file', join(directory, 'none')])).rejects.toThrow(/ENOENT/);
  const empty = join(directory, 'empty');
  await writeFile(empty, '\n');
  await expect(parseServiceFlags(['--token-file', empty])).rejects.toThrow(/is empty/);
});

test('a flag without its value is refused', async () => {
  await expect(parseServiceFlags(['--port'])).rejects.toThrow(/--port needs a value/);
  await expect(parseServiceFlags(['--state-dir='])).rejects.toThrow(/--state-dir needs a value/);
});

test('the agent reads its address and its access', async () => {
  expect(
    await parseAgentFlags(['--directory', '/v', '--listen', '[::1]:0', '--token-file', tokenFile]),
  ).toMatchObject({
    directory: '/v',
    name: 'file',
    host: '::1',
    port: 0,
    access: { token: 'a secret', tls: undefined },
    allowPlaintext: false,
  });
});

test('the agent tells everything that is wrong at once', async () => {
  const args = '--name a/b --listen nowhere --tls-cert /none';
  const error = await parseAgentFlags(args.split(' ')).catch((thrown: unknown) => thrown);
  for (const part of ['--directory', '--name', '--listen', '--tls-cert', '--tls-key']) {
    expect(String(error)).toContain(part);
  }
});
