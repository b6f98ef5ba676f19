/** Debian's Swift on loopback, in a directory of its own: proxy (TempAuth, s3api; Keystone on request) and storage servers. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePorts } from './free-ports.ts';

export type SwiftServer = {
  /** `http://127.0.0.1:port`, also the endpoint of s3api. */
  readonly url: string;
  readonly port: number;
  /** What TempAuth's `GET` wants: user `test:tester`, key `testing`. */
  readonly authUrl: string;
  readonly directory: string;
  /** The proxy's log so far. */
  log(): Promise<string>;
  stop(): Promise<void>;
};

export type SwiftServerOptions = {
  /** URL of a Keystone whose `service` project has the user `swift`, password `swift`. */
  readonly keystone?: string;
  /** Proxy processes besides the first; 0 serves in the first. */
  readonly workers?: number;
  readonly tokenLifeSeconds?: number;
  readonly tokenCacheSeconds?: number;
  /** Lines for [swift-constraints], such as `container_listing_limit = 100`. */
  readonly constraints?: string;
  /** Lines for [DEFAULT] and [app:proxy-server] of the proxy. */
  readonly proxyDefault?: string;
  readonly proxyApp?: string;
  /** Domain under which buckets are host names. */
  readonly storageDomain?: string;
  /** Five ports that were drawn together with those of another server; its own unless given. */
  readonly ports?: readonly number[];
};

export async function startSwift(options: SwiftServerOptions = {}): Promise<SwiftServer> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-swift-'));
  const [proxy, account, container, object, memcached] = options.ports ?? (await freePorts(5));
  const settings = {
    directory,
    ports: { proxy, account, container, object, memcached },
    keystone: options.keystone ?? null,
    workers: options.workers ?? 0,
    tokenLifeSeconds: options.tokenLifeSeconds ?? 86_400,
    tokenCacheSeconds: options.tokenCacheSeconds ?? 300,
    constraints: options.constraints ?? '',
    proxyDefault: options.proxyDefault ?? '',
    proxyApp: options.proxyApp ?? '',
    storageDomain: options.storageDomain ?? '',
  };
  const script = fileURLToPath(new URL('swift_node.py', import.meta.url));
  const child = spawn('/usr/bin/python3', [script, JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' },
  });
  const errors: string[] = [];
  child.stderr.setEncoding('utf8').on('data', (text: string) => errors.push(text));
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, 'exit');
      child.stdin.end();
      await gone;
    }
    await rm(directory, { recursive: true, force: true });
  };
  const log = async () => await readFile(join(directory, 'proxy.log'), 'utf8').catch(() => '');
  for await (const line of createInterface(child.stdout)) {
    if (line === 'ready') {
      const url = `http://127.0.0.1:${proxy}`;
      return { url, port: proxy ?? 0, authUrl: `${url}/auth/v1.0`, directory, log, stop };
    }
    errors.push(line);
    break;
  }
  const proxyLog = await log();
  await stop();
  throw new Error(`Swift did not start: ${errors.join('').trim()}\n${proxyLog.slice(-2000)}`);
}
