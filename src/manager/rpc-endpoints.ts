/**
 * The methods of cinder-backup's RPC interface and what does them (cinder/backup/rpcapi.py). A table: each entry is one
 * method of `backupMethods`; versions are the bus's business, which serves all up to `backupRpcVersion`.
 *
 * | method | since | kind |
 * |---|---|---|
 * | create_backup, restore_backup, delete_backup, reset_status | 2.0 | cast |
 * | export_record, check_support_to_force_delete | 2.0 | call |
 * | import_record | 2.0 | cast |
 * | set_log_levels, get_log_levels | 2.1 | cast, call |
 * | publish_service_capabilities | 2.2 | fanout cast |
 * | continue_backup | 2.3 | cast |
 * | restore_backup with volume_is_new | 2.4 | cast |
 *
 * A handler returns when the request has been taken, not when its operation ends: what runs is the registry's business,
 * and a request that waits must not hold up a deletion that comes after it.
 */
import { requestContextOf, type BusContext } from '../bus/bus-context.ts';
import type { Dispatch } from '../bus/rpc-server.ts';
import type { Entity, EntityMap } from '../bus/versioned-object.ts';
import { withLogFields } from '../log.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestScope } from './environment.ts';
import { logFieldsOf } from './start-verbs.ts';

export type RpcRequest = RequestScope & {
  readonly args: EntityMap;
  /** The context as it came: whose token it is, and what travels on with requests of ours. */
  readonly bus: BusContext;
};

/** Does what a request asks for, and returns the result of a call; null for a cast. */
export type RpcEndpoint = (request: RpcRequest) => Promise<Entity>;

export type RpcEndpoints = Readonly<Record<string, RpcEndpoint>>;

/** The dispatch of the bus. `scopeOf` makes what a request is done in: its store, its notifications, its keys. */
export function createDispatch(
  endpoints: RpcEndpoints,
  scopeOf: (context: BusContext) => RequestScope,
): Dispatch {
  return async (method, args, bus) =>
    await withLogFields(busLogFields(bus), async () => {
      const endpoint = Object.hasOwn(endpoints, method) ? endpoints[method] : undefined;
      if (endpoint === undefined) throw new BackupError('bug', `no endpoint stands for ${method}`);
      return await endpoint({ ...scopeOf(bus), args, bus });
    });
}

function busLogFields(bus: BusContext): Record<string, string> {
  const { globalRequestId } = bus;
  const fields = logFieldsOf(requestContextOf(bus));
  return globalRequestId === null ? fields : { ...fields, global_request_id: globalRequestId };
}

/** A text argument. Throws `message-invalid`. */
export function requireText(args: EntityMap, name: string): string {
  const value = args[name];
  if (typeof value === 'string' && value !== '') return value;
  throw new BackupError('message-invalid', `the argument ${name} of the request is not a text`);
}
