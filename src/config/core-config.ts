/** [DEFAULT]: what cinder-backup itself goes by, beside store, bus and database. */
import { coreOptions } from './core-options.ts';
import type { ValuesOf } from './option.ts';
import type { Settings } from './settings.ts';

export type CoreConfig = {
  /** Name of this service in queues and rows. */
  readonly host: string;
  readonly availabilityZone: string;
  readonly reportIntervalMs: number;
  readonly serviceDownMs: number;
  /** How long a stop waits for running operations; 0: for ever. */
  readonly shutdownTimeoutMs: number;
  /** Whether the schedulers may use a service as soon as it has a row. */
  readonly enableNewServices: boolean;
  /** Section names of the volume back ends. */
  readonly enabledBackends: readonly string[];
  readonly backupDriver: string;
  /** Backups and restores that may run at once; 0: no limit. */
  readonly maxOperations: number;
  readonly driverCheckIntervalMs: number;
  readonly capabilitiesIntervalMs: number;
  readonly metadataVersion: number;
  readonly objectsPerNotification: number;
  readonly progressIntervalMs: number;
  /** How long users can read what went wrong. */
  readonly messageTtlMs: number;
  /** How usages of quotas are kept; how much there may be is the business of cinder-api. */
  readonly quota: {
    readonly untilRefresh: number;
    readonly maxAgeSeconds: number;
    readonly reservationSeconds: number;
  };
  readonly log: {
    readonly debug: boolean;
    /** Undefined: standard output. */
    readonly file: string | undefined;
    readonly directory: string | undefined;
  };
};

/** Reads the options; every problem is noted in the settings. */
export function readCoreConfig(settings: Settings): CoreConfig {
  const options = settings.read('DEFAULT', coreOptions);
  const positive = (
    option: 'report_interval' | 'service_down_time' | 'backup_object_number_per_notification',
  ) => {
    if (options[option] < 1) settings.reject('DEFAULT', option, 'it must be at least 1');
    return options[option];
  };
  if (options.host === '' || /[\s@#]/u.test(options.host)) {
    settings.reject(
      'DEFAULT',
      'host',
      'it must be a name without spaces, "@" and "#": it becomes part of queue names',
    );
  }
  refuseTemplates(settings, options);
  warnOfNoEffect(settings, options);
  return {
    host: options.host,
    availabilityZone: options.storage_availability_zone,
    reportIntervalMs: positive('report_interval') * 1000,
    serviceDownMs:
      serviceDownSeconds(settings, positive('service_down_time'), options.report_interval) * 1000,
    shutdownTimeoutMs: options.graceful_shutdown_timeout * 1000,
    enableNewServices: options.enable_new_services,
    enabledBackends: options.enabled_backends,
    backupDriver: options.backup_driver,
    maxOperations: options.backup_max_operations,
    driverCheckIntervalMs: options.backup_driver_init_check_interval * 1000,
    capabilitiesIntervalMs: options.backup_driver_stats_polling_interval * 1000,
    metadataVersion: options.backup_metadata_version,
    objectsPerNotification: positive('backup_object_number_per_notification'),
    progressIntervalMs: options.backup_timer_interval * 1000,
    messageTtlMs: options.message_ttl * 1000,
    quota: {
      untilRefresh: options.until_refresh,
      maxAgeSeconds: options.max_age,
      reservationSeconds: options.reservation_expire,
    },
    log: { debug: options.debug, file: options.log_file, directory: options.log_dir },
  };
}

type CoreValues = ValuesOf<typeof coreOptions>;

/** A name on the storage is parsed wherever one comes in: with other names no volume would be found. */
function refuseTemplates(settings: Settings, options: CoreValues): void {
  const templates = [
    ['volume_name_template', 'volume-%s'],
    ['snapshot_name_template', 'snapshot-%s'],
  ] as const;
  for (const [option, expected] of templates) {
    if (options[option] === expected) continue;
    settings.reject(
      'DEFAULT',
      option,
      `cinder-delta finds volumes and snapshots on the storage under the names of Cinder's default: it must be ${expected}`,
    );
  }
}

function warnOfNoEffect(settings: Settings, options: CoreValues): void {
  if (!options.backup_service_inithost_offload) {
    settings.warnings.push(
      '[DEFAULT] backup_service_inithost_offload = false has no effect: deletions of an earlier process go on beside new requests',
    );
  }
  if (options.backup_name_template !== 'backup-%s') {
    settings.warnings.push(
      '[DEFAULT] backup_name_template has no effect: only drivers that cinder-delta does not have name anything by it',
    );
  }
}

/** As cinder/service.py does: a service that is counted down between two reports would never be up. */
function serviceDownSeconds(settings: Settings, downSeconds: number, reportSeconds: number): number {
  if (downSeconds > reportSeconds) return downSeconds;
  const better = Math.floor(reportSeconds * 2.5);
  settings.warnings.push(
    `[DEFAULT] service_down_time (${downSeconds}) must be more than report_interval (${reportSeconds}): ${better} is used`,
  );
  return better;
}
