/** Debian's Ceph with a radosgw on loopback, in memory: one monitor, one OSD. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePorts } from './free-ports.ts';

export type RadosgwServer = {
  /** `http://127.0.0.1:port`; buckets may also be host names under `s3.test`. */
  readonly url: string;
  readonly port: number;
  /** Where the same server is a Swift, for its user `tester:swift`, key `testing`. */
  readonly authUrl: string;
  /** Access and secret keys of two users. */
  readonly keys: {
    readonly tester: { readonly accessKey: string; readonly secretKey: string };
    readonly other: { readonly accessKey: string; readonly secretKey: string };
  };
  stop(): Promise<void>;
};

function keysOf(user: string) {
  return { accessKey: user, secretKey: `secret-of-${user}` };
}

export async function startRadosgw(): Promise<RadosgwServer> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-radosgw-'));
  const [mon = 0, rgw = 0] = await freePorts(2);
  const script = fileURLToPath(new URL('radosgw_node.py', import.meta.url));
  const child = spawn('/usr/bin/python3', [script, JSON.stringify({ directory, ports: { mon, rgw } })], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' },
  });
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, 'exit');
      child.stdin.end();
      await gone;
    }
    await rm(directory, { recursive: true, force: true });
  };
  for await (const line of createInterface(child.stdout)) {
    if (line !== 'ready') break;
    const keys = { tester: keysOf('tester'), other: keysOf('other') };
    const url = `http://127.0.0.1:${rgw}`;
    return { url, port: rgw, authUrl: `${url}/auth/v1.0`, keys, stop };
  }
  const logs = await Promise.all(
    ['setup.log', 'client.rgw.log'].map((name) => readFile(join(directory, name), 'utf8').catch(() => '')),
  );
  await stop();
  throw new Error(`radosgw did not start:\n${logs.join('\n').slice(-3000)}`);
}
