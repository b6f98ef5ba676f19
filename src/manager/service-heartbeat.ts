/**
 * The heartbeat in `services` (cinder/service.py, report_state). Other services take a host for up while its row was
 * touched within service_down_time; so it is touched only while this service can do its work.
 */
import { registerBackupService, reportBackupService } from '../database/services.ts';
import type { Database } from '../database/database.ts';
import type { Logger } from '../log.ts';
import type { Clock } from '../model/clock.ts';

export type ServiceHeartbeat = {
  /** Finds or makes the row. Before all else: peers that start meanwhile read the versions in it. Errors of the database. */
  register(): Promise<void>;
  /** One sign of life, unless something is wrong; never throws. A row that was removed is made anew. */
  beat(): Promise<void>;
};

export type HeartbeatDeps = {
  readonly database: Database;
  readonly host: string;
  readonly availabilityZone: string;
  /** A row that is made is not disabled. */
  readonly enableNewServices: boolean;
  /** What keeps this service from working, in a few words each; empty: nothing. */
  readonly impediments: () => readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
};

export function createServiceHeartbeat(deps: HeartbeatDeps): ServiceHeartbeat {
  const { database, host, availabilityZone, clock, log } = deps;
  let id: number | undefined;
  let silent = '';

  const register = async (): Promise<void> => {
    id = await registerBackupService(database.sql, deps, clock.now());
  };

  /** Says once that the heartbeat stops, or for another reason, and once that it goes on. */
  const tell = (reason: string, error?: unknown): void => {
    if (reason === silent) return;
    if (reason === '') log.info({ host }, 'heartbeat goes on');
    else log.error({ host, reason, err: error }, 'no heartbeat: this service will appear down');
    silent = reason;
  };

  return {
    register,
    async beat() {
      const impediments = deps.impediments();
      if (impediments.length > 0) return tell(impediments.join(', '));
      try {
        if (id === undefined) await register();
        else if (!(await reportBackupService(database.sql, id, availabilityZone, clock.now()))) {
          log.warn({ host }, 'the row of this service is gone: it is made anew');
          await register();
        }
        tell('');
      } catch (error) {
        tell('the database does not take it', error);
      }
    },
  };
}
