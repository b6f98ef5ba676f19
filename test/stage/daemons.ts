/**
 * Programs that outlive the process that started them. What runs is written down below a directory, so that any later process
 * can stop, kill or restart it: the stage is started by one process, played with by others, and stopped by yet another one.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';

const specSchema = z.object({
  name: z.string(),
  command: z.string(),
  args: z.array(z.string()),
  /** The whole environment beside PATH, LANG and HOME. */
  env: z.record(z.string(), z.string()).default({}),
  /** Whether its standard input must stay open: programs of test/support end with it. */
  needsInput: z.boolean().default(false),
});
const recordSchema = z.object({ pid: z.number(), startedAt: z.string(), spec: specSchema });

export type DaemonSpec = z.input<typeof specSchema>;
type DaemonRecord = z.infer<typeof recordSchema>;

export type Daemons = {
  /** Starts it in a session of its own; does nothing if it runs already. Its output is appended to its log. */
  start(spec: DaemonSpec): Promise<void>;
  /** Starts again what was started before under this name. */
  startAgain(name: string): Promise<void>;
  /** Asks it to end, and kills what is left of its process group after `graceMs`. True if it ended by itself. */
  stop(name: string, graceMs: number): Promise<boolean>;
  /** kill -9, its children too. */
  kill(name: string): Promise<void>;
  /** Sends a signal to the process group: SIGSTOP and SIGCONT hold and release it. */
  signal(name: string, signal: NodeJS.Signals): Promise<void>;
  isRunning(name: string): Promise<boolean>;
  pidOf(name: string): Promise<number | undefined>;
  /** Names of everything ever started here. */
  names(): Promise<readonly string[]>;
  log(name: string): Promise<string>;
  logFile(name: string): string;
  /** Waits until `probe` is true. Throws with the end of the log when the program ends first, or it takes too long. */
  ready(name: string, timeoutMs: number, probe: () => Promise<boolean>): Promise<void>;
};

const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const killTimeoutMs = 20_000;

export function createDaemons(directory: string): Daemons {
  const recordFile = (name: string) => join(directory, 'run', `${name}.json`);
  const logFile = (name: string) => join(directory, 'log', `${name}.log`);

  const read = async (name: string): Promise<DaemonRecord | undefined> => {
    const text = await readFile(recordFile(name), 'utf8').catch(() => undefined);
    return text === undefined ? undefined : recordSchema.parse(JSON.parse(text));
  };
  const pidOf = async (name: string): Promise<number | undefined> => {
    const record = await read(name);
    if (record === undefined) return undefined;
    return (await startTimeOf(record.pid)) === record.startedAt ? record.pid : undefined;
  };
  const log = async (name: string) => await readFile(logFile(name), 'utf8').catch(() => '');

  const start = async (given: DaemonSpec): Promise<void> => {
    const spec = specSchema.parse(given);
    if ((await pidOf(spec.name)) !== undefined) return;
    await mkdir(join(directory, 'run'), { recursive: true });
    await mkdir(join(directory, 'log'), { recursive: true });
    const output = openSync(logFile(spec.name), 'a');
    try {
      const child = spawn(...withInput(spec), {
        detached: true,
        cwd: directory,
        env: { PATH: path, LANG: 'C.UTF-8', HOME: directory, PYTHONDONTWRITEBYTECODE: '1', ...spec.env },
        stdio: ['ignore', output, output],
      });
      await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject));
      child.unref();
      const pid = child.pid ?? 0;
      const startedAt = (await startTimeOf(pid)) ?? '';
      await writeFile(recordFile(spec.name), JSON.stringify({ pid, startedAt, spec }));
    } finally {
      closeSync(output);
    }
  };

  const waitUntilEnded = async (name: string, timeoutMs: number): Promise<boolean> => {
    for (const until = Date.now() + timeoutMs; Date.now() < until; await sleep(20)) {
      if ((await pidOf(name)) === undefined) return true;
    }
    return false;
  };

  /** Also ends a group whose leader has ended. */
  const killGroup = async (name: string): Promise<void> => {
    const record = await read(name);
    if (record === undefined) return;
    send(-record.pid, 'SIGKILL');
    if (!(await waitUntilEnded(name, killTimeoutMs))) throw new Error(`${name} cannot be killed`);
  };

  return {
    start,
    async startAgain(name) {
      const record = await read(name);
      if (record === undefined) throw new Error(`${name} was never started here`);
      await start(record.spec);
    },
    async stop(name, graceMs) {
      const pid = await pidOf(name);
      if (pid !== undefined) send(pid, 'SIGTERM');
      const ended = await waitUntilEnded(name, graceMs);
      await killGroup(name);
      return ended;
    },
    kill: killGroup,
    async signal(name, signal) {
      const pid = await pidOf(name);
      if (pid === undefined) throw new Error(`${name} does not run`);
      send(-pid, signal);
    },
    isRunning: async (name) => (await pidOf(name)) !== undefined,
    pidOf,
    async names() {
      const entries = await readdir(join(directory, 'run')).catch(() => []);
      return entries.filter((entry) => entry.endsWith('.json')).map((entry) => entry.slice(0, -5));
    },
    log,
    logFile,
    async ready(name, timeoutMs, probe) {
      for (const until = Date.now() + timeoutMs; Date.now() < until; await sleep(100)) {
        if (await probe()) return;
        if ((await pidOf(name)) === undefined) {
          throw new Error(`${name} ended at its start:\n${(await log(name)).slice(-4000)}`);
        }
      }
      throw new Error(`${name} is not ready after ${timeoutMs} ms:\n${(await log(name)).slice(-4000)}`);
    },
  };
}

/** `sleep` holds the other end of the pipe, in the same process group. */
function withInput(spec: z.infer<typeof specSchema>): [string, string[]] {
  if (!spec.needsInput) return [spec.command, spec.args];
  return [
    '/bin/bash',
    ['-c', 'exec "$@" < <(exec sleep infinity)', spec.command, spec.command, ...spec.args],
  ];
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

/** What tells a process from a later one of the same id; undefined if it has ended, reaped or not. */
async function startTimeOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, startTime] = [fields?.[0], fields?.[19]];
  return state === 'Z' || state === 'X' ? undefined : startTime;
}
