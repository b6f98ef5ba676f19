/**
 * The configuration of a service or agent beside Cinder: the files of `--config-file` and `--config-dir` in oslo.config's
 * syntax, read into values with one clean meaning each. Cinder's names end here.
 *
 * Entry: `loadServiceConfig`, `loadAgentConfig`. All errors of all files and options are reported in one `config-invalid`; nothing connects
 * anywhere. Every value knows where it came from (`entries`), secrets are hidden in all that is shown. The tables of
 * options (`*-options.ts`) hold Cinder's names, types and defaults; the rest of the room follows from them.
 */
import { BackupError } from '../model/errors.ts';
import { backendOptions } from './backend-options.ts';
import { readBackends, type BackendConfig } from './backend-config.ts';
import { readConfigFiles, type ConfigArgument, type ConfigFiles } from './config-files.ts';
import { readCoreConfig, type CoreConfig } from './core-config.ts';
import { coreOptions } from './core-options.ts';
import { findOptionFile, readDatabaseConfig, type DatabaseConfig } from './database-config.ts';
import { databaseOptions } from './database-options.ts';
import { readDeltaConfig, type DeltaConfig } from './delta-config.ts';
import { deltaOptions } from './delta-options.ts';
import {
  readKeyManager,
  readOwnCredentials,
  readServiceUser,
  type KeyManagerConfig,
  type KeystoneCredentials,
} from './keystone-config.ts';
import {
  authTokenOptions,
  barbicanOptions,
  barbicanServiceUserOptions,
  keyManagerOptions,
  serviceUserOptions,
} from './keystone-options.ts';
import { readMessagingConfig, type MessagingConfig } from './messaging-config.ts';
import { notificationOptions, rabbitOptions, transportOptions } from './messaging-options.ts';
import { readOptionFile, type OptionFile } from './mysql-option-file.ts';
import type { OptionTable } from './option.ts';
import { throwIfProblems, type Problem } from './problem.ts';
import { createSettings, type Entry, type Settings } from './settings.ts';
import { readStoreConfig, type StoreConfig } from './store-config.ts';
import { chunkedOptions, nfsOptions, posixOptions, s3Options, swiftOptions } from './store-options.ts';
import { warnOfUnusedOptions } from './unused-options.ts';

export type ServiceConfig = {
  readonly core: CoreConfig;
  readonly store: StoreConfig;
  readonly messaging: MessagingConfig;
  readonly database: DatabaseConfig;
  readonly ownCredentials: KeystoneCredentials | undefined;
  readonly serviceUser: KeystoneCredentials | undefined;
  readonly keyManager: KeyManagerConfig;
  readonly backends: readonly BackendConfig[];
  readonly delta: DeltaConfig;
};

/** What the agent needs of the same files. */
export type AgentFileConfig = {
  readonly core: CoreConfig;
  readonly backends: readonly BackendConfig[];
  readonly delta: DeltaConfig;
};

export type Loaded<T> = {
  readonly config: T;
  readonly warnings: readonly string[];
  /** Every option that was read, for `check-config`. */
  readonly entries: readonly Entry[];
};

/** The tables by section: what `$` references may name and `check-config` knows. */
export const optionTables = {
  DEFAULT: {
    ...coreOptions,
    ...chunkedOptions,
    ...swiftOptions,
    ...s3Options,
    ...posixOptions,
    ...nfsOptions,
    ...transportOptions,
  },
  database: databaseOptions,
  oslo_messaging_rabbit: rabbitOptions,
  oslo_messaging_notifications: notificationOptions,
  keystone_authtoken: authTokenOptions,
  service_user: serviceUserOptions,
  key_manager: keyManagerOptions,
  barbican: barbicanOptions,
  barbican_service_user: barbicanServiceUserOptions,
  backend_defaults: backendOptions,
  delta: deltaOptions,
} satisfies Record<string, OptionTable>;

/** Loads the configuration of the service. Throws one `config-invalid` for everything that is wrong. */
export async function loadServiceConfig(
  configArguments: readonly ConfigArgument[],
): Promise<Loaded<ServiceConfig>> {
  const read = await readConfigFiles(configArguments);
  const place = findOptionFile(createSettings(read.files, optionTables));
  return serviceConfigOf(read, place === undefined ? undefined : await readOptionFile(place));
}

/** Loads the part of the configuration that the agent needs. Throws one `config-invalid` for everything that is wrong. */
export async function loadAgentConfig(
  configArguments: readonly ConfigArgument[],
): Promise<Loaded<AgentFileConfig>> {
  const { files, problems } = await readConfigFiles(configArguments);
  const settings = createSettings(files, optionTables);
  const core = readCoreConfig(settings);
  const config = {
    core,
    backends: readBackends(settings, core.enabledBackends, core.host, { needed: true }),
    delta: readDeltaConfig(settings),
  };
  return finish(settings, problems, config);
}

/** Where backups go, for a service that takes nothing else from these files. */
export type StoreFileConfig = {
  readonly store: StoreConfig;
  readonly serviceUser: KeystoneCredentials | undefined;
};

/** Loads what `backup_driver` and its options say. Throws one `config-invalid` for everything that is wrong. */
export async function loadStoreConfig(
  configArguments: readonly ConfigArgument[],
): Promise<Loaded<StoreFileConfig>> {
  const { files, problems } = await readConfigFiles(configArguments);
  const settings = createSettings(files, optionTables);
  const core = readCoreConfig(settings);
  const store = readStoreConfig(settings, core.backupDriver);
  const serviceUser = readServiceUser(settings);
  throwIfProblems([...problems, ...settings.problems]);
  if (store === undefined) throw new BackupError('bug', 'a missing section was not reported');
  return finish(settings, problems, { store, serviceUser });
}

/** The configuration of the service from files that have been read; `optionFile` is that of [database] connection. */
export function serviceConfigOf(
  { files, problems }: ConfigFiles,
  optionFile?: OptionFile,
): Loaded<ServiceConfig> {
  const settings = createSettings(files, optionTables);
  const core = readCoreConfig(settings);
  const parts = {
    core,
    store: readStoreConfig(settings, core.backupDriver),
    messaging: readMessagingConfig(settings),
    database: readDatabaseConfig(settings, optionFile),
    ownCredentials: readOwnCredentials(settings),
    serviceUser: readServiceUser(settings),
    keyManager: readKeyManager(settings),
    // The volume service of this file may be none, as on a host that has cinder-backup only.
    backends: readBackends(settings, core.enabledBackends, core.host, { needed: false }),
    delta: readDeltaConfig(settings),
  };
  warnOfUnusedOptions(settings);
  const { store, database, ...others } = parts;
  throwIfProblems([...problems, ...settings.problems]);
  if (store === undefined || database === undefined)
    throw new BackupError('bug', 'a missing section was not reported');
  return finish(settings, problems, { ...others, store, database });
}

function finish<T>(settings: Settings, problems: readonly Problem[], config: T): Loaded<T> {
  throwIfProblems([...problems, ...settings.problems]);
  return { config, warnings: settings.warnings, entries: settings.entries };
}
