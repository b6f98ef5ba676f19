/** Debian's Ceph on loopback, for RBD volumes: one monitor, one OSD on a sparse file, cephx. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort } from './free-ports.ts';

const runFile = promisify(execFile);
const path = '/usr/sbin:/usr/bin:/sbin:/bin';

export type CephDaemon = 'mon' | 'osd';

export type CephCluster = AsyncDisposable & {
  readonly directory: string;
  readonly conf: string;
  readonly fsid: string;
  /** `kill` is SIGKILL; `start` waits until the daemon is up again; `pause` and `resume` stop it and let it go on. */
  daemon(verb: 'kill' | 'start' | 'pause' | 'resume', name: CephDaemon): Promise<void>;
  /** `rbd` as the administrator; returns its output. */
  rbd(...args: readonly string[]): Promise<string>;
  ceph(...args: readonly string[]): Promise<string>;
};

/** The cluster and its directory go when it is disposed of, or with this process. */
export async function startCeph(
  options: {
    readonly pools?: readonly string[];
    /** Client names with a keyring `ceph.client.<name>.keyring` in the directory, good for all pools. */
    readonly users?: readonly string[];
    readonly fileBytes?: number;
  } = {},
): Promise<CephCluster> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-ceph-'));
  const script = fileURLToPath(new URL('ceph_node.py', import.meta.url));
  const wanted = {
    directory,
    port: await freePort(),
    pools: options.pools ?? ['volumes'],
    users: options.users ?? ['cinder'],
    file_bytes: options.fileBytes ?? 16 * 1024 ** 3,
  };
  const child = spawn('/usr/bin/python3', [script, JSON.stringify(wanted)], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: path, LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' },
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, 'exit');
      child.stdin.end();
      await gone;
    }
    await rm(directory, { recursive: true, force: true });
  };
  const setupLog = () => readFile(join(directory, 'setup.log'), 'utf8').catch(() => '');
  const first = await lines.next();
  const ready = /^ready (\S+)$/.exec(first.done === true ? '' : first.value);
  if (ready?.[1] === undefined) {
    const log = await setupLog();
    await stop();
    throw new Error(`Ceph did not start: ${String(first.value)}\n${log.slice(-3000)}`);
  }
  const conf = join(directory, 'ceph.conf');
  const tool = async (name: string, args: readonly string[]) => {
    const { stdout } = await runFile(name, ['-c', conf, ...args], {
      env: { PATH: path, LANG: 'C.UTF-8' },
      maxBuffer: 64 * 1024 ** 2,
    });
    return stdout;
  };
  let turn: Promise<unknown> = Promise.resolve();
  return {
    directory,
    conf,
    fsid: ready[1],
    daemon(verb, name) {
      const done = turn.then(async () => {
        child.stdin.write(`${verb} ${name}\n`);
        const answer = await lines.next();
        if (answer.value !== 'done') throw new Error(`${verb} ${name}: ${await setupLog()}`);
      });
      turn = done.catch(() => {});
      return done;
    },
    rbd: (...args) => tool('rbd', args),
    ceph: (...args) => tool('ceph', args),
    [Symbol.asyncDispose]: stop,
  };
}
