/**
 * Requests for backups, restores, deletions and resets, as cinder-api, the scheduler and cinder-volume send them. Of the
 * objects in a message only the ids are taken: the rows tell the rest, and they are newer.
 *
 * A request that comes twice is done once: its operation waits for the end of the first one's (operations.ts), and then the status
 * of the row refuses it. None is dropped because something runs: a row is free before its operation has ended, and who sees
 * that may ask for the next thing.
 */
import { readBackup } from '../bus/cinder-objects.ts';
import type { Backup } from '../model/backup.ts';
import { requireUuid } from '../model/names.ts';
import type { Operations } from './operations.ts';
import { requireText, type RpcEndpoints, type RpcRequest } from './rpc-endpoints.ts';
import type { StartVerbs } from './start-verbs.ts';
import { takeContinue } from './take-continue.ts';
import { takeReset } from './take-reset.ts';

export type RequestEndpointDeps = { readonly operations: Operations; readonly verbs: StartVerbs };

export function createRequestEndpoints({ operations, verbs }: RequestEndpointDeps): RpcEndpoints {
  return {
    create_backup: async (request) => {
      verbs.create(request, backupOf(request));
      return await Promise.resolve(null);
    },

    continue_backup: async (request) => {
      const backup = backupOf(request);
      await takeContinue(request, operations, backup.id, () => verbs.create(request, backup));
      return null;
    },

    restore_backup: async (request) => {
      const backup = backupOf(request);
      const volumeId = requireUuid('volume_id', requireText(request.args, 'volume_id'));
      verbs.restore(request, backup, volumeId);
      return await Promise.resolve(null);
    },

    delete_backup: async (request) => {
      verbs.remove(request, backupOf(request));
      return await Promise.resolve(null);
    },

    reset_status: async (request) => {
      const backup = backupOf(request);
      try {
        await takeReset(request, operations, backup.id, requireText(request.args, 'status'));
      } finally {
        await request.environment.cloud.end();
      }
      return null;
    },
  };
}

function backupOf({ args }: RpcRequest): Backup {
  const { backup } = readBackup(args['backup']);
  requireUuid('backup id', backup.id);
  return backup;
}
