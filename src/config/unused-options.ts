/**
 * Options of Cinder whose names start with `backup_` and that cinder-delta does not act on. Those that other services read
 * are passed over in silence; for the rest a warning says why they have no effect. Anything else is unknown.
 */
import { coreOptions } from './core-options.ts';
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
]);

const ofRefusedDrivers = /^backup_(?:ceph|gcs|glusterfs|tsm)_|^backup_(?:volume_prefix|glusterfs_\w+)$/u;

/** Adds a warning to the settings for each `backup_*` option in [DEFAULT] that has no effect. */
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
}
