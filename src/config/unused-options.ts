/**
 * Options of Cinder that cinder-delta does not act on: those whose names start with `backup_`, and those of logs and database
 * that operators set. Those that other services read are passed over in silence; for the rest a warning says why they have no
 * effect. Any other `backup_*` is unknown.
 */
import { coreOptions } from './core-options.ts';
import { databaseOptions } from './database-options.ts';
import type { Option } from './option.ts';
import type { Settings } from './settings.ts';
import { chunkedOptions, nfsOptions, posixOptions, s3Options, swiftOptions } from './store-options.ts';

const honoured = new Set(
  [coreOptions, chunkedOptions, swiftOptions, s3Options, posixOptions, nfsOptions].flatMap((table) => [
    ...Object.keys(table),
    ...Object.values(table).flatMap((option) => option.aliases.flatMap(({ name }) => name ?? [])),
  ]),
);

const ofOtherServices = new Set([
  'backup_api_class',
  'backup_use_same_host',
  'backup_use_temp_snapshot',
  'backup_manager',
]);

const withoutEffect = new Map([
  ['backup_workers', 'one process serves all operations, with threads of its own ([delta] seal_threads)'],
  ['backup_native_threads_pool_size', 'there is no pool of native threads; see [delta] seal_threads'],
  // update_container_name of cinder/backup/drivers/posix.py never leaves the choice to it.
  ['backup_container', 'cinder-backup does not act on it either; each backup gets a directory of its own'],
]);

const logsGo = 'the log goes to log_file, or to standard output, which systemd keeps';
const retries = 'what the database cannot do now is tried again for max_retries times retry_interval';

/** Known, so that `$` may refer to them, but read by nothing: only another value than the default is told. */
const readByNothing: readonly (readonly [string, string, Option<unknown>, string])[] = [
  ['DEFAULT', 'use_syslog', coreOptions.use_syslog, logsGo],
  ['DEFAULT', 'use_stderr', coreOptions.use_stderr, logsGo],
  ['database', 'use_db_reconnect', databaseOptions.use_db_reconnect, retries],
  ['database', 'db_retry_interval', databaseOptions.db_retry_interval, retries],
  ['database', 'db_inc_retry_interval', databaseOptions.db_inc_retry_interval, retries],
  ['database', 'db_max_retry_interval', databaseOptions.db_max_retry_interval, retries],
  ['database', 'db_max_retries', databaseOptions.db_max_retries, retries],
];

const ofRefusedDrivers = /^backup_(?:ceph|gcs|glusterfs|tsm)_|^backup_(?:volume_prefix|glusterfs_\w+)$/u;

/** Adds a warning to the settings for each option that is set and has no effect. */
export function warnOfUnusedOptions(settings: Settings): void {
  if (settings.raw.hasSection('default')) {
    settings.warnings.push(
      'a section is named [default]: only [DEFAULT], in capitals, has the general options',
    );
  }
  for (const { key, file, line } of settings.raw.assignments('DEFAULT')) {
    if (!key.startsWith('backup_') || honoured.has(key) || ofOtherServices.has(key)) continue;
    const reason =
      withoutEffect.get(key) ??
      (ofRefusedDrivers.test(key)
        ? 'it belongs to a driver that cinder-delta does not have'
        : 'there is no such option');
    settings.warnings.push(`${file}:${line}: [DEFAULT] ${key} has no effect: ${reason}`);
  }
  for (const [section, name, option, reason] of readByNothing) {
    const found = settings.raw.find(section, name, option);
    if (found === undefined || isDefault(option, found.texts)) continue;
    const { file, line } = found.source;
    settings.warnings.push(`${file}:${line}: [${section}] ${name} has no effect: ${reason}`);
  }
}

function isDefault({ type, defaultText = '' }: Option<unknown>, texts: readonly string[]): boolean {
  const [given, usual] = [type.parse(texts), type.parse([defaultText])];
  return given.ok && usual.ok && type.format(given.value) === type.format(usual.value);
}
