/** Debian's Barbican on loopback, in a directory of its own, over SQLite; its keys are sealed with its simple crypto plugin. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export type BarbicanServer = {
  /** `http://127.0.0.1:port`, without a version. */
  readonly url: string;
  log(): Promise<string>;
  stop(): Promise<void>;
};

/** `keystoneUrl` is that of keystone-server.ts, whose user `cinder` Barbican takes for its own. */
export async function startBarbican(keystoneUrl: string, port: number): Promise<BarbicanServer> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-barbican-'));
  const url = `http://127.0.0.1:${port}`;
  const settings = { directory, port, url, keystone: keystoneUrl };
  const script = fileURLToPath(new URL('barbican_node.py', import.meta.url));
  const child = spawn('/usr/bin/python3', [script, JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' },
  });
  const log = async () => await readFile(join(directory, 'barbican.log'), 'utf8').catch(() => '');
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, 'exit');
      child.stdin.end();
      await gone;
    }
    await rm(directory, { recursive: true, force: true });
  };
  for await (const line of createInterface(child.stdout)) {
    if (line === 'ready') return { url, log, stop };
  }
  const text = await log();
  await stop();
  throw new Error(`Barbican did not start:\n${text.slice(-3000)}`);
}
