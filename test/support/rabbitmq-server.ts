/** Debian's RabbitMQ on loopback, with an epmd and a directory of its own; all of it is gone after `stop`. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { freePorts } from './free-ports.ts';

export type RabbitServer = {
  readonly port: number;
  /** `rabbit://guest:guest@127.0.0.1:<port>/` */
  readonly url: string;
  readonly directory: string;
  /** Runs rabbitmqctl, and returns what it prints. */
  ctl(...args: readonly string[]): Promise<string>;
  /** Names of the queues, with their properties as rabbitmqctl prints them. */
  queues(): Promise<ReadonlyMap<string, { readonly messages: number; readonly consumers: number }>>;
  /** kill -9. */
  kill(): Promise<void>;
  /** Starts it again after `kill`, on the same port. */
  restart(): Promise<void>;
  stop(): Promise<void>;
};

export type RabbitOptions = {
  /** Lines for rabbitmq.conf. */
  readonly configuration?: string;
};

/** Debian's start script: it runs Erlang in the foreground. */
export const rabbitServer = '/usr/lib/rabbitmq/bin/rabbitmq-server';
const control = '/usr/lib/rabbitmq/bin/rabbitmqctl';
const startTimeoutMs = 120_000;

/** True if the packages are installed. */
export function hasRabbitMq(): boolean {
  return existsSync(rabbitServer) && existsSync('/usr/bin/epmd');
}

export async function startRabbitMq({ configuration = '' }: RabbitOptions = {}): Promise<RabbitServer> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-rabbitmq-'));
  const [port = 0, distribution = 0, mapper = 0] = await freePorts(3);
  const env = await prepareRabbitMq(directory, { port, distribution, mapper }, configuration);
  const epmd = spawn('/usr/bin/epmd', ['-address', '127.0.0.1', '-port', String(mapper)], {
    env,
    stdio: 'ignore',
  });
  let node = await startNode(env);

  const ctl = async (...args: readonly string[]) => {
    const { stdout } = await promisify(execFile)(control, ['-q', ...args], { env });
    return stdout;
  };

  return {
    port,
    url: `rabbit://guest:guest@127.0.0.1:${port}/`,
    directory,
    ctl,
    async queues() {
      const listed = await ctl('list_queues', 'name', 'messages', 'consumers', '--no-table-headers');
      const rows = listed
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split('\t'));
      return new Map(
        rows.map(([name = '', messages, consumers]) => [
          name,
          { messages: Number(messages), consumers: Number(consumers) },
        ]),
      );
    },
    kill: () => end(node, 'SIGKILL'),
    async restart() {
      node = await startNode(env);
    },
    async stop() {
      await end(node, 'SIGKILL');
      await end(epmd, 'SIGKILL');
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Writes the configuration of a node, and returns the environment of its server, its epmd and rabbitmqctl. */
export async function prepareRabbitMq(
  directory: string,
  {
    port,
    distribution,
    mapper,
  }: { readonly port: number; readonly distribution: number; readonly mapper: number },
  configuration = '',
): Promise<Record<string, string>> {
  await mkdir(join(directory, 'log'), { recursive: true });
  await writeFile(join(directory, 'plugins'), '[].\n');
  await writeFile(
    join(directory, 'rabbitmq.conf'),
    `listeners.tcp.1 = 127.0.0.1:${port}\nlog.console = true\nlog.console.level = info\nlog.file = false\n${configuration}`,
  );
  return {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    LANG: 'C.UTF-8',
    HOME: directory,
    RABBITMQ_NODENAME: `delta${port}@localhost`,
    RABBITMQ_DIST_PORT: String(distribution),
    RABBITMQ_MNESIA_BASE: join(directory, 'mnesia'),
    RABBITMQ_LOG_BASE: join(directory, 'log'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(directory, 'plugins'),
    RABBITMQ_CONFIG_FILE: join(directory, 'rabbitmq.conf'),
    // One scheduler: the tests do not need more, and the machine has few.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+S 1:1 +A 2 -kernel inet_dist_use_interface {127,0,0,1}',
    ERL_EPMD_ADDRESS: '127.0.0.1',
    ERL_EPMD_PORT: String(mapper),
  };
}

/** The whole process group is ended with it: the script starts erl, and erl starts helpers. */
async function startNode(env: NodeJS.ProcessEnv): Promise<ChildProcess> {
  const child = spawn(rabbitServer, [], { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const timer = setTimeout(() => void end(child, 'SIGKILL'), startTimeoutMs);
  const lines: string[] = [];
  child.stderr.on('data', (piece: Buffer) => lines.push(piece.toString()));
  const reader = createInterface({ input: child.stdout });
  try {
    for await (const line of reader) {
      lines.push(line);
      if (line.includes('Server startup complete')) return child;
    }
    throw new Error(`RabbitMQ did not start:\n${lines.slice(-40).join('\n')}`);
  } finally {
    clearTimeout(timer);
    // Leaving the loop paused it; a full pipe would stop the server.
    child.stdout.resume();
  }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const closed = once(child, 'exit');
  try {
    process.kill(child.spawnargs[0] === rabbitServer ? -child.pid : child.pid, signal);
  } catch {
    child.kill(signal);
  }
  await closed;
}
