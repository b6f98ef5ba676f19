/** `cinder-delta service`: the flags of the standalone service. */
import { loadStoreConfig } from '../config/service-config.ts';
import { createLogger, type Logger } from '../log.ts';
import {
  isPowerOfTwo,
  largestBlockBytes,
  largestMergeGapBytes,
  leastBlockBytes,
} from '../model/block-size.ts';
import { codecOf } from '../model/codec.ts';
import { isLoopback } from '../protocol/loopback.ts';
import { logLevels, parseFlags, readFlagFile, type Flags } from './flags.ts';
import { runUntilSignal } from './lifecycle.ts';
import type { OpenedStore } from './open-posix-store.ts';
import { isOpenstackCommand, openstackHelp, runOpenstackService } from './openstack-command.ts';
import { createStandalone, standaloneDefaults, type StandaloneOptions } from './standalone.ts';

export const serviceHelp = `cinder-delta service: backups of the volumes under a state directory, over REST

  --state-dir DIR        everything is kept here: volumes, backups, rows (./state)
  --host ADDRESS         address of the REST API (127.0.0.1); another than loopback needs --token-file
                         and --allow-plaintext
  --port PORT            port of the REST API (8776; 0 takes a free one)
  --token-file FILE      its content must be sent as X-Auth-Token
  --allow-plaintext      let the token pass over plain HTTP on a network that is trusted
  --store-config FILE    backups go where backup_driver of this cinder.conf says (<state>/backups)
  --codec NAME           none, zlib, bz2, zstd (zlib)
  --zlib-effort NAME     speed, balanced, size (balanced)
  --object-bytes N       size of an object before compression (52428800); of data at most 25 MiB, and a tenth of the
                         memory for buffers, are taken: the log of the start says what is in force
  --block-size N         unit of hashing and change, a power of two (32768)
  --merge-gap-bytes N    changed ranges nearer than this become one object (one block)
  --memory-mib N         ceiling of the buffers of all operations (512)
  --max-operations N     operations at once (15)
  --drain-seconds N      time that a stop leaves to running operations (30)
  --log-level NAME       trace, debug, info, warn, error (info)

${openstackHelp}`;

export type ServiceSettings = {
  readonly stateDir: string;
  readonly host: string;
  readonly port: number;
  readonly options: StandaloneOptions;
  readonly storeConfig: string | undefined;
  readonly logLevel: string;
};

const names = [
  'state-dir',
  'host',
  'port',
  'token-file',
  'store-config',
  'codec',
  'zlib-effort',
  'object-bytes',
  'block-size',
  'merge-gap-bytes',
  'memory-mib',
  'max-operations',
  'drain-seconds',
  'log-level',
];

/** Reads the flags. Throws `config-invalid` with everything that is wrong. */
export async function parseServiceFlags(args: readonly string[]): Promise<ServiceSettings> {
  const flags = parseFlags(args, names, ['allow-plaintext']);
  const host = flags.text('host') ?? '127.0.0.1';
  const token = await readFlagFile(flags, 'token-file');
  if (!isLoopback(host) && !flags.isSet('token-file')) {
    flags.refuse(`--host is ${host}: without --token-file only loopback addresses are served`);
  }
  if (!isLoopback(host) && !flags.isSet('allow-plaintext')) {
    flags.refuse(
      `--host is ${host}: the token would be readable on the network; put a proxy with TLS before a loopback address, or give --allow-plaintext`,
    );
  }
  const settings = {
    stateDir: flags.text('state-dir') ?? 'state',
    host,
    port: flags.integer('port', { minimum: 0, maximum: 65_535 }) ?? 8776,
    options: { ...readSizes(flags), ...readLimits(flags), token },
    storeConfig: flags.text('store-config'),
    logLevel: flags.choice('log-level', logLevels) ?? 'info',
  };
  flags.requireValid();
  return settings;
}

function readSizes(flags: Flags): Omit<StandaloneOptions, 'memoryBytes' | 'maxOperations' | 'drainMs'> {
  const defaults = standaloneDefaults;
  const given = flags.text('codec');
  const codec = given === undefined ? defaults.codec : codecOf(given);
  if (codec === undefined) flags.refuse(`--codec is ${given}: it must be none, zlib, bz2 or zstd`);
  const blockSize =
    flags.integer('block-size', { minimum: leastBlockBytes, maximum: largestBlockBytes }) ??
    defaults.blockSize;
  if (!isPowerOfTwo(blockSize)) flags.refuse(`--block-size is ${blockSize}: it must be a power of two`);
  const objectBytes =
    flags.integer('object-bytes', { minimum: 512, maximum: 5 * 1024 ** 3 }) ?? defaults.objectBytes;
  if (objectBytes % blockSize !== 0) {
    flags.refuse(`--object-bytes is ${objectBytes}: it must be a multiple of the block size, ${blockSize}`);
  }
  return {
    codec: codec ?? defaults.codec,
    zlibEffort: flags.choice('zlib-effort', ['speed', 'balanced', 'size']) ?? defaults.zlibEffort,
    blockSize,
    objectBytes,
    mergeGapBytes:
      flags.integer('merge-gap-bytes', { minimum: 0, maximum: largestMergeGapBytes }) ?? blockSize,
  };
}

function readLimits(flags: Flags): Pick<StandaloneOptions, 'memoryBytes' | 'maxOperations' | 'drainMs'> {
  const defaults = standaloneDefaults;
  const memoryMiB = flags.integer('memory-mib', { minimum: 32, maximum: 1024 ** 2 });
  const drainSeconds = flags.integer('drain-seconds', { minimum: 0, maximum: 86_400 });
  return {
    memoryBytes: memoryMiB === undefined ? defaults.memoryBytes : memoryMiB * 1024 ** 2,
    maxOperations: flags.integer('max-operations', { minimum: 1, maximum: 1000 }) ?? defaults.maxOperations,
    drainMs: drainSeconds === undefined ? defaults.drainMs : drainSeconds * 1000,
  };
}

/** Runs the service until it is told to stop. Returns the exit code. */
export async function runService(args: readonly string[]): Promise<number> {
  if (isOpenstackCommand(args)) return await runOpenstackService(args);
  const { stateDir, host, port, options, storeConfig, logLevel } = await parseServiceFlags(args);
  const log = createLogger({ level: logLevel });
  const store = storeConfig === undefined ? undefined : await openStoreOf(storeConfig, log);
  return await runUntilSignal(log, () => createStandalone({ stateDir, host, port, options, store, log }));
}

/** Opens the store of a cinder.conf and tests it; what is wrong with it is logged, since it may come right later. */
async function openStoreOf(path: string, log: Logger): Promise<OpenedStore> {
  const { config, warnings } = await loadStoreConfig([{ kind: 'file', path }]);
  for (const warning of warnings) log.warn({ file: path }, warning);
  const region = process.env['AWS_DEFAULT_REGION'];
  const { openStore } = await import('./open-store.ts');
  const opened = openStore(config.store, { serviceUser: config.serviceUser, caller: null, region, log });
  const { ready, findings } = await opened.check(new AbortController().signal);
  for (const finding of findings)
    log[ready ? 'info' : 'error']({ store: config.store.kind, finding }, 'self-test of the store');
  return opened;
}
