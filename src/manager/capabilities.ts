/**
 * What the scheduler knows of this service: it places new backups by nothing else (cinder/manager.py,
 * SchedulerDependentManager; cinder/scheduler/host_manager.py, backup_service_states). It forgets nothing, so a service that
 * stops takes its word back.
 */
import { randomUUID } from 'node:crypto';
import { anySignal } from '../async/any-signal.ts';
import { adminContext } from '../bus/bus-context.ts';
import type { OutgoingRequest } from '../bus/rpc-client.ts';
import type { Logger } from '../log.ts';
import type { Clock } from '../model/clock.ts';
import { throwIfAborted } from '../model/errors.ts';

export type Capabilities = {
  /** Tells all schedulers. Fails only when the signal aborts; what cannot be sent in time is logged. */
  publish(signal: AbortSignal): Promise<void>;
};

export type CapabilitiesDeps = {
  readonly cast: (request: OutgoingRequest, signal: AbortSignal) => Promise<void>;
  readonly host: string;
  /** Class path of the store's driver. */
  readonly driverName: string;
  readonly availabilityZone: string;
  /** Whether backups can be made here now. */
  readonly isWorking: () => boolean;
  /** A message that found no scheduler within this time is given up. */
  readonly giveUpMs: number;
  readonly clock: Clock;
  readonly log: Logger;
};

const schedulerTopic = 'cinder-scheduler';

export function createCapabilities(deps: CapabilitiesDeps): Capabilities {
  const { cast, host, clock, log } = deps;

  const send = async (request: OutgoingRequest, signal: AbortSignal): Promise<void> => {
    try {
      await cast(request, anySignal([signal, AbortSignal.timeout(deps.giveUpMs)]));
    } catch (err) {
      throwIfAborted(signal);
      log.warn({ err, method: request.method }, 'the scheduler was not told of this service');
    }
  };

  return {
    async publish(signal) {
      const context = adminContext(`req-${randomUUID()}`, clock.now());
      const capabilities = {
        backend_state: deps.isWorking(),
        driver_name: deps.driverName,
        availability_zone: deps.availabilityZone,
      };
      const about = { service_name: 'backup', capabilities };
      log.debug({ capabilities }, 'telling the schedulers of this service');
      // Both at once: the second waits for a queue that is not there while no scheduler ever ran.
      await Promise.all([
        send(
          {
            target: { kind: 'fanout', topic: schedulerTopic },
            method: 'update_service_capabilities',
            version: '3.3',
            args: { ...about, host, cluster_name: null, timestamp: timestampOf(clock.now()) },
            context,
          },
          signal,
        ),
        send(
          {
            target: { kind: 'topic', topic: schedulerTopic },
            method: 'notify_service_capabilities',
            version: '3.5',
            args: { ...about, backend: host, timestamp: timestampOf(clock.now()) },
            context,
          },
          signal,
        ),
      ]);
    },
  };
}

/** Python's `isoformat` of a UTC time without zone. */
function timestampOf(time: Date): string {
  return time.toISOString().replace('Z', '000');
}
