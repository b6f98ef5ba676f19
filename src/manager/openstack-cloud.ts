/** The cloud as one request has it: notifications and requests to cinder-volume carry its context. */
import type { Cloud, KeyCopies } from './cloud.ts';
import type { MessageBus } from '../bus/message-bus.ts';
import { requestSnapshotRemoval, requestVolumeRemoval, type VolumeRequestDeps } from './volume-requests.ts';

export type OpenstackCloudDeps = Omit<VolumeRequestDeps, 'bus'> & {
  readonly bus: Pick<MessageBus, 'cast' | 'notifier'>;
  readonly isWorking: () => boolean;
  readonly hasWorked: () => boolean;
  /** With the rights of the caller. */
  readonly keys: KeyCopies;
  readonly end: () => Promise<void>;
};

export function createOpenstackCloud(deps: OpenstackCloudDeps): Cloud {
  const { bus, context, isWorking, hasWorked, keys, end } = deps;
  return {
    isWorking,
    hasWorked,
    notify: (backup, event, extra) => bus.notifier.notifyBackup(context, backup, event, extra),
    removeVolume: (temporary, signal) => requestVolumeRemoval(deps, temporary, signal),
    removeSnapshot: (temporary, signal) => requestSnapshotRemoval(deps, temporary, signal),
    keys,
    end,
  };
}
