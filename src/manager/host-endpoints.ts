/** The requests that are about the host rather than about one backup's data: entries of the RPC dispatch table. */
import { z } from 'zod';
import { readBackup } from '../bus/cinder-objects.ts';
import type { BusContext } from '../bus/bus-context.ts';
import type { Entity, EntityMap } from '../bus/versioned-object.ts';
import { BackupError } from '../model/errors.ts';
import { exportRecord } from './export-record.ts';
import type { HostLife } from './host-life.ts';
import { importRecord, type ImportDeps } from './import-record.ts';
import { getLogLevels, setLogLevels } from './log-levels.ts';
import type { NamedLoggers } from './named-loggers.ts';

const texts = z.array(z.string());

/** Answers one method: what it returns is the result of a call. */
export type RpcHandler = (args: EntityMap, context: BusContext) => Promise<Entity>;

export type HostEndpointDeps = ImportDeps & {
  readonly life: Pick<HostLife, 'publish'>;
  readonly loggers: NamedLoggers;
};

export type HostMethod =
  | 'export_record'
  | 'import_record'
  | 'check_support_to_force_delete'
  | 'publish_service_capabilities'
  | 'set_log_levels'
  | 'get_log_levels';

export function createHostEndpoints(deps: HostEndpointDeps): Readonly<Record<HostMethod, RpcHandler>> {
  const { life, loggers } = deps;
  return {
    async export_record(args) {
      return await exportRecord(deps, readBackup(args['backup']));
    },
    async import_record(args, context) {
      const { backup } = args;
      const { id: backupId } = readBackup(backup).backup;
      await importRecord(deps, {
        backupId,
        backup: backup ?? null,
        service: requireText(args, 'backup_service'),
        url: requireText(args, 'backup_url'),
        hosts: requireTexts(args, 'backup_hosts'),
        context,
      });
      return null;
    },
    // All chunked drivers can delete by force (cinder/backup/chunkeddriver.py).
    check_support_to_force_delete: async () => await Promise.resolve(true),
    async publish_service_capabilities() {
      life.publish();
      return await Promise.resolve(null);
    },
    async set_log_levels({ log_request: logRequest }) {
      setLogLevels(loggers, logRequest);
      return await Promise.resolve(null);
    },
    async get_log_levels({ log_request: logRequest }) {
      return await Promise.resolve(getLogLevels(loggers, logRequest));
    },
  };
}

function requireText(args: EntityMap, name: string): string {
  const value = args[name];
  if (typeof value === 'string') return value;
  throw new BackupError('message-invalid', `the argument ${name} of import_record is no text`);
}

function requireTexts(args: EntityMap, name: string): readonly string[] {
  const parsed = texts.safeParse(args[name]);
  if (parsed.success) return parsed.data;
  throw new BackupError('message-invalid', `the argument ${name} of import_record is no list of hosts`);
}
