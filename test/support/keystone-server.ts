/** Debian's Keystone on loopback, in a directory of its own, over SQLite. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { freePort } from './free-ports.ts';

export type KeystoneServer = {
  /** `http://127.0.0.1:port`, without a version. */
  readonly url: string;
  /** Ids by name: projects `service`, `demo`, `backups`; users `cinder` (admin and service in service), `swift`,
   * `demo` (member in demo), `backup` (member in backups), `stranger` (reader in demo). A user's password is its name. */
  readonly projects: Readonly<Record<string, string>>;
  readonly users: Readonly<Record<string, string>>;
  log(): Promise<string>;
  stop(): Promise<void>;
};

const madeSchema = z.object({
  projects: z.record(z.string(), z.string()),
  users: z.record(z.string(), z.string()),
});

/** `swiftUrl` goes into the catalog, for the region `RegionOne`. */
export async function startKeystone(options: {
  readonly swiftUrl: string;
  readonly port?: number;
  readonly tokenLifeSeconds?: number;
  /** More services for the catalog, in the region `RegionOne`. */
  readonly services?: readonly { readonly type: string; readonly name: string; readonly url: string }[];
}): Promise<KeystoneServer> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-keystone-'));
  const port = options.port ?? (await freePort());
  const url = `http://127.0.0.1:${port}`;
  const settings = {
    directory,
    port,
    url,
    swiftUrl: options.swiftUrl,
    region: 'RegionOne',
    tokenLifeSeconds: options.tokenLifeSeconds ?? 3600,
    services: options.services ?? [],
  };
  const script = fileURLToPath(new URL('keystone_node.py', import.meta.url));
  const child = spawn('/usr/bin/python3', [script, JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' },
  });
  const log = async () => await readFile(join(directory, 'keystone.log'), 'utf8').catch(() => '');
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, 'exit');
      child.stdin.end();
      await gone;
    }
    await rm(directory, { recursive: true, force: true });
  };
  for await (const line of createInterface(child.stdout)) {
    return { url, ...madeSchema.parse(JSON.parse(line)), log, stop };
  }
  const text = await log();
  await stop();
  throw new Error(`Keystone did not start:\n${text.slice(-3000)}`);
}
