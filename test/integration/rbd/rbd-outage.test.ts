/** A Ceph that stops answering, and an agent that is killed, while RBD volumes are read and written. */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { createAgent, type Agent } from '../../../src/agent/agent.ts';
import type { ClusterSettings } from '../../../src/agent/rbd-steps.ts';
import { createLogger } from '../../../src/log.ts';
import { backupSnapshotName, volumeName } from '../../../src/model/names.ts';
import { createAgentClient, type AgentClient } from '../../../src/volume/agent-client.ts';
import type { BlockSource } from '../../../src/volume/block-source.ts';
import { startCeph, type CephCluster } from '../../support/ceph-cluster.ts';
import { freePort } from '../../support/free-ports.ts';
import { patternBytes } from '../../support/random-volume.ts';
import { clientConf, createImage, openRbdBackend } from '../../support/rbd-volumes.ts';

const MiB = 1024 * 1024;
const sizeBytes = 96 * MiB;
const blockSize = 32_768;
const cli = fileURLToPath(new URL('../../../src/main/cli.ts', import.meta.url));
const { signal } = new AbortController();
const log = createLogger({ level: 'silent' });

let cluster: CephCluster;
let volume: string;
let client: AgentClient;

beforeAll(async () => {
  cluster = await startCeph();
  const backend = await openRbdBackend(cluster);
  volume = volumeName(randomUUID());
  await createImage(cluster, volume, sizeBytes, { objectSize: '4M' });
  const target = await backend.openTarget(volume);
  for (let offset = 0; offset < sizeBytes; offset += 4 * MiB)
    await target.write(offset, patternBytes(offset, 4 * MiB, 7));
  await target.flush();
  await target.close();
  await backend.close();
});
afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

async function takeSnapshot(of: string): Promise<BlockSource> {
  const snapshot = backupSnapshotName(randomUUID(), 1);
  const { identity, size_bytes: lengthBytes } = await client.createSnapshot('ceph', of, snapshot, signal);
  const request = { backend: 'ceph', volume: of, snapshot, identity, lengthBytes, blockSize };
  return client.source({ ...request, mergeGapBytes: 0 });
}

/** Reads everything and calls `between` after each third; every byte must be that of its place. */
async function readThrough(source: BlockSource, between: (third: number) => Promise<void>): Promise<number> {
  let covered = 0;
  let thirds = 0;
  for await (const event of source.delta(null, signal)) {
    if (event.kind !== 'data') continue;
    expect(event.offset).toBe(covered);
    expect(event.bytes.equals(patternBytes(event.offset, event.length, 7))).toBe(true);
    covered += event.length;
    if (covered > ((thirds + 1) * sizeBytes) / 3) {
      thirds += 1;
      await between(thirds);
    }
  }
  return covered;
}

function connect(url: string, attempts: number, access: { readonly token?: string } = {}): AgentClient {
  const retry = { attempts, firstDelayMs: 50, maxDelayMs: 500 };
  return createAgentClient({ url, access, log, retry });
}

const sessionList = z.array(
  z.object({ entity_name: z.string(), socket_addr: z.object({ addr: z.string(), nonce: z.number() }) }),
);

/** The clients that the monitor knows. */
async function sessions() {
  const told = await cluster.ceph('--admin-daemon', join(cluster.directory, 'mon.a.asok'), 'sessions');
  return sessionList.parse(JSON.parse(told));
}

async function watchers(of: string): Promise<unknown> {
  return JSON.parse(await cluster.rbd('status', `volumes/${of}`, '--format', 'json')).watchers;
}

describe('a cluster', () => {
  let agent: Agent;

  const serve = async (settings: Partial<ClusterSettings>, attempts = 60) => {
    const backends = [await openRbdBackend(cluster, settings)];
    agent = await createAgent({ backends, access: {}, host: '127.0.0.1', port: 0, log });
    client = connect(agent.url, attempts);
  };
  afterEach(async () => {
    await client.close();
    await agent.close();
  });

  test('that pauses and whose OSD is restarted holds a stream up, and nothing is lost', async () => {
    await serve({ answerTimeoutS: 60 });
    const source = await takeSnapshot(volume);
    const covered = await readThrough(source, async (third) => {
      if (third > 2) return;
      const [stop, go] = third === 1 ? (['pause', 'resume'] as const) : (['kill', 'start'] as const);
      await cluster.daemon(stop, 'osd');
      setTimeout(() => void cluster.daemon(go, 'osd'), 1500);
    });
    expect(covered).toBe(sizeBytes);
  });

  test('that does not come back ends a stream with a sentence that names it, and is served again when it is back', async () => {
    await serve({ answerTimeoutS: 3 }, 1);
    const source = await takeSnapshot(volume);
    try {
      const read = readThrough(source, () => cluster.daemon('kill', 'osd'));
      await expect(read).rejects.toMatchObject({
        code: 'agent-unavailable',
        message: expect.stringMatching(/cluster ceph does not answer: snapshot backup\./),
      });
      await expect(client.volume('ceph', volume, signal)).rejects.toMatchObject({
        code: 'agent-unavailable',
        message: expect.stringMatching(/cluster ceph does not answer: volume-/),
      });
    } finally {
      await cluster.daemon('start', 'osd');
    }
    await client.close();
    client = connect(agent.url, 60);
    expect(await readThrough(await takeSnapshot(volume), () => Promise.resolve())).toBe(sizeBytes);
  });

  test('that does not come back fails a restore, and the volume can be restored to again', async () => {
    await serve({ answerTimeoutS: 3 }, 1);
    const lengthBytes = 16 * MiB;
    const target = volumeName(randomUUID());
    await createImage(cluster, target, lengthBytes, { objectSize: '4M' });
    const restore = async (interrupt: () => Promise<void>) => {
      const open = await client.target({ backend: 'ceph', volume: target, lengthBytes, signal });
      await open.writeData(0, patternBytes(0, 8 * MiB, 7));
      await interrupt();
      await open.writeData(8 * MiB, patternBytes(8 * MiB, 8 * MiB, 7));
      await open.finish();
    };
    try {
      await expect(restore(() => cluster.daemon('kill', 'osd'))).rejects.toMatchObject({
        code: 'agent-unavailable',
      });
    } finally {
      await cluster.daemon('start', 'osd');
    }
    await restore(() => Promise.resolve());
    let covered = 0;
    for await (const event of (await takeSnapshot(target)).delta(null, signal)) {
      if (event.kind !== 'data') continue;
      expect(event.bytes.equals(patternBytes(event.offset, event.length, 7))).toBe(true);
      covered += event.length;
    }
    expect(covered).toBe(lengthBytes);
  });

  test('that is away when the agent starts is asked again when it is needed', async () => {
    await cluster.daemon('pause', 'mon');
    try {
      await serve({ connectTimeoutS: 2 }, 1);
      await expect(client.volume('ceph', volume, signal)).rejects.toMatchObject({
        code: 'agent-unavailable',
        message: expect.stringMatching(/cluster ceph does not answer/),
      });
    } finally {
      await cluster.daemon('resume', 'mon');
    }
    await client.close();
    client = connect(agent.url, 60);
    expect(await client.volume('ceph', volume, signal)).toMatchObject({ size_bytes: sizeBytes });
  });

  test('that blocklists the agent is connected to anew', async () => {
    await serve({ answerTimeoutS: 20 }, 1);
    await client.volume('ceph', volume, signal);
    for (const { entity_name, socket_addr: address } of await sessions()) {
      if (entity_name !== 'client.cinder') continue;
      await cluster.ceph('osd', 'blocklist', 'add', `${address.addr}/${address.nonce}`);
    }
    await expect(client.volume('ceph', volume, signal)).rejects.toMatchObject({
      message: expect.stringMatching(/blocklisted/),
    });
    const asked = async () => (await client.volume('ceph', volume, signal)).size_bytes;
    await expect.poll(asked, { timeout: 20_000 }).toBe(sizeBytes);
  });
});

describe('what is wrong with the configuration is said', () => {
  test.each([
    ['a pool that is not there', { pool: 'absent' }, /pool absent is not there/],
    ['a user that the cluster does not know', { user: 'nobody' }, /client\.nobody cannot log in/],
    [
      'a file that is not there',
      { cephConf: '/nonexistent/ceph.conf' },
      /\/nonexistent\/ceph\.conf cannot be read/,
    ],
  ])('%s', async (_, settings, message) => {
    await expect(openRbdBackend(cluster, settings)).rejects.toMatchObject({
      code: 'config-invalid',
      message: expect.stringMatching(message),
    });
  });

  test('a key that is not right, and without showing it', async () => {
    const keyring = join(cluster.directory, 'wrong.keyring');
    const key = 'AQBWrongWrongWrongEAAWrongWrongWrongWrongQ==';
    await writeFile(keyring, `[client.cinder]\n\tkey = ${key}\n`);
    const path = join(cluster.directory, 'wrong.conf');
    const conf = await readFile(await clientConf(cluster, 'cinder'), 'utf8');
    await writeFile(path, conf.replace(/keyring = .*/, `keyring = ${keyring}`));
    const error: unknown = await openRbdBackend(cluster, { cephConf: path }).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ code: 'config-invalid' });
    expect(String(error)).toMatch(/cannot log in/);
    expect(String(error)).not.toContain(key);
  });
});

describe('an agent of cinder.conf', () => {
  const token = 'a secret of this test';
  let agent: ChildProcess;
  let port: number;

  const secret = 'a secret of both';

  const start = async () => {
    const path = join(cluster.directory, 'cinder.conf');
    const tokenFile = join(cluster.directory, 'token');
    await writeFile(tokenFile, `${secret}\n`, { mode: 0o600 });
    await writeFile(
      path,
      `[DEFAULT]
enabled_backends = ceph,lvm
host = node1
[ceph]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = fast
rbd_pool = volumes
rbd_user = cinder
rbd_ceph_conf = ${await clientConf(cluster, 'cinder')}
[lvm]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
[delta]
agent_port = ${port}
agent_token_file = ${join(cluster.directory, 'agent.token')}
`,
    );
    await writeFile(join(cluster.directory, 'agent.token'), `${token}\n`, { mode: 0o600 });
    const args = [cli, 'agent', '--config-file', path, '--log-level', 'error'];
    agent = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    await client.backends(signal);
  };
  const kill = async () => {
    const ended = once(agent, 'close');
    agent.kill('SIGKILL');
    await ended;
  };

  const begin = async () => {
    port = await freePort();
    client = connect(`http://127.0.0.1:${port}`, 60, { token });
    await start();
  };
  const stop = async () => {
    const ended = once(agent, 'close');
    agent.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
    await client.close();
  };

  test('serves its RBD back ends, is killed twice in a stream that goes on, and leaves nothing in the cluster', async () => {
    await begin();
    expect(await client.backends(signal)).toEqual([
      { name: 'ceph', type: 'rbd', delta: 'extents', restore: true, create_volume: false },
    ]);
    const source = await takeSnapshot(volume);
    const covered = await readThrough(source, async (third) => {
      if (third > 2) return;
      expect(await watchers(volume)).toEqual([]);
      await kill();
      await start();
    });
    expect(covered).toBe(sizeBytes);
    await stop();
    expect(await watchers(volume)).toEqual([]);
  });

  test('is killed in a restore and in a snapshot, and both can be done again', async () => {
    const lengthBytes = 16 * MiB;
    const target = volumeName(randomUUID());
    await createImage(cluster, target, lengthBytes, { objectSize: '4M' });
    await begin();
    const restore = async (interrupt: () => Promise<void>) => {
      const open = await client.target({ backend: 'ceph', volume: target, lengthBytes, signal });
      await open.writeData(0, patternBytes(0, 8 * MiB, 7));
      await interrupt();
      await open.writeData(8 * MiB, patternBytes(8 * MiB, 8 * MiB, 7));
      await open.finish();
    };
    const killed = restore(async () => {
      await kill();
      await start();
    });
    await expect(killed).rejects.toMatchObject({ code: 'agent-unavailable' });
    await restore(() => Promise.resolve());
    const snapshot = backupSnapshotName(randomUUID(), 1);
    const asked = client.createSnapshot('ceph', target, snapshot, signal);
    await kill();
    await start();
    expect((await asked).size_bytes).toBe(lengthBytes);
    expect(await client.snapshots('ceph', target, signal)).toHaveLength(1);
    await client.deleteSnapshot('ceph', target, snapshot, signal);
    let covered = 0;
    for await (const event of (await takeSnapshot(target)).delta(null, signal)) {
      if (event.kind !== 'data') continue;
      expect(event.bytes.equals(patternBytes(event.offset, event.length, 7))).toBe(true);
      covered += event.length;
    }
    expect(covered).toBe(lengthBytes);
    await stop();
    expect(await watchers(target)).toEqual([]);
  });
});
