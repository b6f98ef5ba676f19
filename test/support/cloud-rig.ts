/**
 * cinder-delta in cinder-backup's place, without Cinder: a real RabbitMQ, rows in SQLite, a directory as the store, an
 * agent over files that stand for the volumes of `refhost@ceph`. What Cinder would send is put on the bus as it was recorded.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect } from 'amqplib';
import { createAgent, type Agent } from '../../src/agent/agent.ts';
import { createFileBackend } from '../../src/agent/file-backend.ts';
import type { VolumeBackend } from '../../src/agent/volume-backend.ts';
import { loadServiceConfig } from '../../src/config/service-config.ts';
import { findBackupEver } from '../../src/database/backups.ts';
import type { Database } from '../../src/database/database.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { createLogger, type Logger } from '../../src/log.ts';
import { createOpenstackService, type OpenstackService } from '../../src/main/openstack-service.ts';
import type { Backup } from '../../src/model/backup.ts';
import { volumeName } from '../../src/model/names.ts';
import { freePorts } from './free-ports.ts';
import { patternBytes } from './pattern.ts';

export type CloudRig = {
  readonly directory: string;
  readonly database: Database;
  readonly configFile: string;
  /** The lines that were logged, as objects. */
  readonly lines: Readonly<Record<string, unknown>>[];
  /** A volume file, `generation` of the pattern. */
  writeVolume(volumeId: string, lengthBytes: number, generation: number): Promise<void>;
  readVolume(volumeId: string): Promise<Buffer>;
  /** Overwrites a range with another generation. */
  changeVolume(volumeId: string, offset: number, length: number, generation: number): Promise<void>;
  /** A Cinder snapshot of the storage. */
  snapshot(volumeId: string, name: string): Promise<void>;
  /** Starts the service, once at a time, and waits until it takes requests. */
  start(): Promise<OpenstackService>;
  /** Waits until the service takes requests from the broker. */
  waitUntilServed(): Promise<void>;
  stop(): Promise<void>;
  /** Starts the service as a process of its own instead, as an operator does. */
  spawn(): Promise<CloudProcess>;
  /** Puts a message on the bus. */
  publish(message: BusMessage): Promise<void>;
  /** Takes what is in a queue; it is made if it is absent. */
  take(queue: string): Promise<Readonly<Record<string, unknown>>[]>;
  row(backupId: string): Promise<Backup>;
  close(): Promise<void>;
};

export type CloudProcess = {
  /** kill -9, and waits until it is gone. */
  kill(): Promise<void>;
  signal(name: NodeJS.Signals): void;
  /** Waits for its end; the exit code. */
  ended(): Promise<number | null>;
  /** What it wrote. */
  log(): string;
};

export type BusMessage = {
  readonly exchange: string;
  readonly routingKey: string;
  readonly payload: string;
};

const cli = fileURLToPath(new URL('../../src/main/cli.ts', import.meta.url));

export const cloudHost = 'refhost';

/** `general` and `delta` are more lines of [DEFAULT] and [delta]. */
export async function createCloudRig(options: {
  readonly brokerUrl: string;
  readonly general?: string;
  readonly delta?: string;
  /** Cinder's database on a server, and its URL for the service; else SQLite. */
  readonly database?: { readonly opened: Database; readonly url: string };
  /** Puts something between the agent and the files. */
  readonly wrap?: (backend: VolumeBackend) => VolumeBackend;
}): Promise<CloudRig> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-cloud-'));
  const volumes = join(directory, 'volumes');
  await mkdir(volumes);
  const lines: Readonly<Record<string, unknown>>[] = [];
  const log = collectingLogger(lines);
  const silent = createLogger({ level: 'silent' });
  const files = await createFileBackend({ name: 'ceph', directory: volumes, log: silent });
  const agent: Agent = await createAgent({
    backends: [options.wrap?.(files) ?? files],
    access: {},
    host: '127.0.0.1',
    port: 0,
    log: silent,
  });
  const [restPort = 0] = await freePorts(1);
  const configFile = join(directory, 'cinder.conf');
  await writeFile(
    configFile,
    `[DEFAULT]
host = ${cloudHost}
transport_url = ${options.brokerUrl}
backup_driver = cinder.backup.drivers.posix.PosixBackupDriver
backup_posix_path = ${join(directory, 'backups')}
backup_file_size = 1048576
${options.general ?? ''}
[database]
connection = ${options.database?.url ?? `sqlite:///${join(directory, 'cinder.sqlite')}`}
[oslo_messaging_notifications]
driver = messagingv2
[delta]
agent_url = ${agent.url}
rest_port = ${restPort}
${options.delta ?? ''}
`,
  );
  const database = options.database?.opened ?? openSqliteDatabase(join(directory, 'cinder.sqlite'));
  const processes = new Set<() => Promise<void>>();
  let service: OpenstackService | undefined;

  const served = () => waitForConsumer(options.brokerUrl, `cinder-backup.${cloudHost}`);

  return {
    directory,
    database,
    configFile,
    waitUntilServed: served,
    lines,
    writeVolume: (id, length, generation) =>
      writeFile(join(volumes, volumeName(id)), patternBytes(length, generation)),
    async changeVolume(id, offset, length, generation) {
      await using file = await open(join(volumes, volumeName(id)), 'r+');
      await file.write(patternBytes(length, generation, offset), 0, length, offset);
    },
    async snapshot(id, name) {
      await files.createSnapshot(volumeName(id), name, new AbortController().signal);
    },
    readVolume: (id) => readFile(join(volumes, volumeName(id))),
    async start() {
      const { config } = await loadServiceConfig([{ kind: 'file', path: configFile }]);
      service = await createOpenstackService({ config, log, signal: new AbortController().signal });
      await served();
      return service;
    },
    async stop() {
      await service?.close();
      service = undefined;
    },
    async spawn() {
      const child = spawn(process.execPath, [cli, 'service', '--config-file', configFile], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const ended = once(child, 'close');
      let written = '';
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (text: string) => {
          written += text;
        });
      }
      await Promise.race([served(), ended]);
      if (child.exitCode !== null) throw new Error(`the service ended with ${child.exitCode}: ${written}`);
      const kill = async () => {
        child.kill('SIGKILL');
        await ended;
      };
      processes.add(kill);
      return {
        kill,
        signal: (name) => void child.kill(name),
        async ended() {
          await ended;
          return child.exitCode;
        },
        log: () => written,
      };
    },
    publish: (message) => publish(options.brokerUrl, message),
    take: (queue) => take(options.brokerUrl, queue),
    async row(backupId) {
      const found = await findBackupEver(database.sql, backupId);
      if (found === undefined) throw new Error(`no row of backup ${backupId}`);
      return found;
    },
    async close() {
      for (const kill of processes) await kill();
      await service?.close();
      await agent.close();
      await database.close();
      await rm(directory, { recursive: true });
    },
  };
}

function collectingLogger(lines: Readonly<Record<string, unknown>>[]): Logger {
  const level = process.env['TEST_LOG'] === undefined ? 'debug' : process.env['TEST_LOG'];
  return createLogger({
    level,
    destination: {
      write(line) {
        lines.push(JSON.parse(line));
        if (process.env['TEST_LOG'] !== undefined) process.stderr.write(line);
      },
    },
  });
}

/** Every try has a channel of its own: a queue that is not there ends it. */
async function waitForConsumer(url: string, queue: string): Promise<void> {
  const connection = await connect(amqpUrl(url));
  const deadline = AbortSignal.timeout(30_000);
  for (let consumers = 0; consumers === 0;) {
    deadline.throwIfAborted();
    await sleep(50);
    const channel = await connection.createChannel();
    channel.on('error', () => undefined);
    consumers = await channel.checkQueue(queue).then(
      ({ consumerCount }) => consumerCount,
      () => 0,
    );
    await channel.close().catch(() => undefined);
  }
  await connection.close();
}

const amqpUrl = (url: string) => url.replace(/^rabbit:/u, 'amqp:');

async function publish(url: string, { exchange, routingKey, payload }: BusMessage): Promise<void> {
  const connection = await connect(amqpUrl(url));
  const channel = await connection.createConfirmChannel();
  channel.publish(exchange, routingKey, Buffer.from(payload), {
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    deliveryMode: 2,
    priority: 0,
    headers: {},
  });
  await channel.waitForConfirms();
  await connection.close();
}

async function take(url: string, queue: string): Promise<Readonly<Record<string, unknown>>[]> {
  const connection = await connect(amqpUrl(url));
  const channel = await connection.createChannel();
  const taken: Readonly<Record<string, unknown>>[] = [];
  await channel.assertQueue(queue, { durable: false });
  for (let got = await channel.get(queue, { noAck: true }); got !== false;) {
    const outer = JSON.parse(got.content.toString());
    taken.push(JSON.parse(outer['oslo.message']));
    got = await channel.get(queue, { noAck: true });
  }
  await connection.close();
  return taken;
}
