import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createAgent, type Agent } from '../../src/agent/agent.ts';
import { createFileBackend } from '../../src/agent/file-backend.ts';
import { createLogger } from '../../src/log.ts';
import { backupSnapshotName, volumeName } from '../../src/model/names.ts';

const log = createLogger({ level: 'silent' });

describe('agent', () => {
  let directory: string;
  const started: Agent[] = [];
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cinder-delta-agent-'));
  });
  afterEach(async () => {
    for (const agent of started.splice(0)) await agent.close();
    await rm(directory, { recursive: true });
  });

  const start = async (host: string, port: number, volumes = directory): Promise<Agent> => {
    const backend = await createFileBackend({ name: 'files', directory: volumes, log });
    const agent = await createAgent({ backends: [backend], access: {}, host, port, readerThreads: 1, log });
    started.push(agent);
    return agent;
  };

  test('answers under its URL, on IPv4 and IPv6', async () => {
    for (const host of ['127.0.0.1', '::1']) {
      const agent = await start(host, 0);
      const answer = await request(`${agent.url}/v1/backends`);
      expect(await answer.body.json()).toMatchObject({ backends: [{ name: 'files' }] });
      await agent.close();
    }
  });

  test('recovers its backends before it answers', async () => {
    const snapshots = join(directory, '.snapshots', volumeName(randomUUID()));
    await mkdir(snapshots, { recursive: true });
    await writeFile(join(snapshots, backupSnapshotName(randomUUID(), 1)), 'half');
    await start('127.0.0.1', 0);
    expect(await readdir(snapshots)).toEqual([]);
  });

  test('leaves what another agent of the same directory is making', async () => {
    await start('127.0.0.1', 0);
    const making = join(directory, '.snapshots', '.making-now');
    await writeFile(making, 'half');
    await expect(start('127.0.0.1', 0)).rejects.toMatchObject({ code: 'state-invalid' });
    expect(await readdir(join(directory, '.snapshots'))).toContain('.making-now');
  });

  test('does not start where everyone could reach it', async () => {
    await expect(start('0.0.0.0', 0)).rejects.toMatchObject({ code: 'config-invalid' });
  });

  test('says which address it cannot have', async () => {
    const { url } = await start('127.0.0.1', 0);
    const port = Number(new URL(url).port);
    const another = join(directory, 'another');
    await mkdir(another);
    const second = start('127.0.0.1', port, another);
    await expect(second).rejects.toMatchObject({
      code: 'config-invalid',
      message: expect.stringContaining(`127.0.0.1:${port}`),
    });
  });
});
