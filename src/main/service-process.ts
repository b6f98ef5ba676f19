/** The service as a process of its own, for the demo, the bench and the tests: started, asked over REST, stopped or killed. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Codec } from '../model/codec.ts';
import { createRestClient, type RestClient } from './rest-client.ts';

export type ServiceOptions = {
  readonly stateDir: string;
  readonly codec?: Codec;
  readonly objectBytes?: number;
  /** Ends every wait of the client. */
  readonly signal?: AbortSignal;
  /** More arguments of `cinder-delta service`. */
  readonly args?: readonly string[];
};

export type ServiceProcess = AsyncDisposable & {
  readonly pid: number;
  readonly client: RestClient;
  /** The last of what it wrote to its log. */
  log(): string;
  /** Kills it as a power failure does, and waits until it is gone. */
  kill(): Promise<void>;
  /** Asks it to stop, and waits until it has; the exit code. */
  stop(): Promise<number | null>;
};

const here = fileURLToPath(import.meta.url);
/** `.ts` when run from source, `.js` when compiled. */
const cli = join(dirname(here), `cli${extname(here)}`);
const startTimeoutMs = 60_000;
const logChars = 256 * 1024;

/** Starts a standalone service on a free port of loopback; resolves when it answers. */
export async function startService(options: ServiceOptions): Promise<ServiceProcess> {
  const args = [cli, 'service', '--state-dir', options.stateDir, '--port', '0', ...(options.args ?? [])];
  if (options.codec !== undefined) args.push('--codec', options.codec);
  if (options.objectBytes !== undefined) args.push('--object-bytes', `${options.objectBytes}`);
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'close');
  const stopped = new AbortController();
  options.signal?.addEventListener('abort', () => stopped.abort(options.signal?.reason));
  let written = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      written = (written + text).slice(-logChars);
    });
  }
  const url = await listeningAddress(child, () => written);
  return {
    pid: child.pid ?? 0,
    client: createRestClient(url, stopped.signal),
    log: () => written,
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
    async stop() {
      child.kill('SIGTERM');
      await exited;
      return child.exitCode;
    },
    async [Symbol.asyncDispose]() {
      stopped.abort(new Error('the service was stopped'));
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      await exited;
    },
  };
}

async function listeningAddress(child: ChildProcess, log: () => string): Promise<string> {
  const deadline = AbortSignal.timeout(startTimeoutMs);
  const find = () => /"url":"(http:\/\/127\.0\.0\.1:\d+)"/.exec(log())?.[1];
  try {
    while (find() === undefined) {
      if (child.exitCode !== null) throw new Error(`the service ended with ${child.exitCode}`);
      await Promise.race([
        child.stdout === null ? undefined : once(child.stdout, 'data', { signal: deadline }),
        once(child, 'close', { signal: deadline }),
      ]);
    }
  } catch (error) {
    child.kill('SIGKILL');
    throw new Error(`the service did not start: ${log()}`, { cause: error });
  }
  return find() ?? '';
}
