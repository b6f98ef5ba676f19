/** Recorded requests, given to the dispatch table of a rig, and a cloud that notes what is asked of it. */
import { randomUUID } from 'node:crypto';
import { readContext, requestContextOf } from '../../src/bus/bus-context.ts';
import { decodeEnvelope } from '../../src/bus/envelope.ts';
import { parseRequest } from '../../src/bus/rpc-message.ts';
import { decodeMap, type Entity, type EntityMap } from '../../src/bus/versioned-object.ts';
import type { Cloud } from '../../src/manager/cloud.ts';
import type { ManagerEnvironment } from '../../src/manager/environment.ts';
import { createRequestEndpoints } from '../../src/manager/request-endpoints.ts';
import { createDispatch } from '../../src/manager/rpc-endpoints.ts';
import { createStartVerbs } from '../../src/manager/start-verbs.ts';
import type { BackupStatus } from '../../src/model/backup.ts';
import { wireFixture } from '../support/wire-fixtures.ts';
import type { Rig } from './rig.ts';

/** Of the recordings. */
export const project = 'b879f831e52c450dafd959b27d64fdee';

export type Told = {
  readonly event: string;
  readonly backupId: string;
  readonly status: string;
  readonly extra: unknown;
};

export type RequestRig = {
  readonly environment: ManagerEnvironment;
  readonly told: readonly Told[];
  readonly removedVolumes: readonly string[];
  readonly removedSnapshots: readonly string[];
  readonly removedKeys: readonly string[];
  isWorking: boolean;
  hasWorked: boolean;
  /** What the removal of a temporary volume waits for. */
  removal: Promise<void>;
  /** How many requests have let go of what was opened for them. */
  readonly ended: number;
  /** Gives a recorded request to the dispatch, about another backup and volume; waits for what it starts unless told not to. */
  send(
    name: string,
    about: { readonly backupId: string; readonly volumeId?: string; readonly args?: EntityMap },
    options?: { readonly waits: boolean },
  ): Promise<Entity>;
  settled(): Promise<void>;
  /** A row as cinder-api makes it. */
  addBackup(
    volumeId: string,
    status: BackupStatus,
    more?: Readonly<Record<string, string | number | null>>,
  ): Promise<string>;
  setVolume(volumeId: string, columns: Readonly<Record<string, string | null>>): Promise<void>;
  messages(): Promise<readonly { readonly event: string; readonly resource: string | null }[]>;
};

/** `changes` replace parts of the environment in which requests are done. */
export function createRequestRig(
  rig: Rig,
  changes: Partial<Pick<ManagerEnvironment, 'database'>> = {},
): RequestRig {
  const told: Told[] = [];
  let ended = 0;
  const removedVolumes: string[] = [];
  const removedSnapshots: string[] = [];
  const removedKeys: string[] = [];
  const { sql } = rig.database;
  const cloud: Cloud = {
    ...rig.environment.cloud,
    isWorking: () => state.isWorking,
    hasWorked: () => state.hasWorked,
    end: async () => {
      ended += 1;
      await Promise.resolve();
    },
    notify: (backup, event, extra) =>
      void told.push({ event, backupId: backup.id, status: backup.status, extra }),
    removeVolume: async ({ id }) => {
      await state.removal;
      removedVolumes.push(id);
    },
    removeSnapshot: async ({ id }) => await Promise.resolve(void removedSnapshots.push(id)),
    keys: {
      ...rig.environment.cloud.keys,
      remove: async (id) => await Promise.resolve(void removedKeys.push(id)),
    },
  };
  const environment = { ...rig.environment, ...changes, cloud };
  const verbs = createStartVerbs(rig.operations);
  const dispatch = createDispatch(
    createRequestEndpoints({ operations: rig.operations, verbs }),
    (context) => ({ environment, context: requestContextOf(context) }),
  );
  const state: RequestRig = {
    environment,
    told,
    removedVolumes,
    removedSnapshots,
    removedKeys,
    isWorking: true,
    hasWorked: true,
    removal: Promise.resolve(),
    get ended() {
      return ended;
    },
    settled: () => rig.settled(),
    async send(name, { backupId, volumeId, args: more = {} }, options = { waits: true }) {
      const { payload_raw: payload } = wireFixture(name);
      const message = parseRequest(await decodeEnvelope({ content: Buffer.from(payload), properties: {} }));
      const recorded = decodeMap(message.args);
      const text = JSON.stringify(message.args['backup']);
      const id = /"id":"([^"]+)"/u.exec(text.slice(text.indexOf('versioned_object.data')))?.[1] ?? '';
      const backup = decodeMap({ backup: JSON.parse(text.replaceAll(id, backupId)) });
      const args = {
        ...recorded,
        ...backup,
        ...(volumeId === undefined ? {} : { volume_id: volumeId }),
        ...more,
      };
      const result = await dispatch(message.method, args, readContext(message.context));
      if (options.waits) await rig.settled();
      return result;
    },
    async addBackup(volumeId, status, more = {}) {
      const id = randomUUID();
      const now = new Date();
      await sql
        .insertInto('backups')
        .values({
          id,
          created_at: now,
          deleted: false,
          project_id: project,
          user_id: 'u',
          volume_id: volumeId,
          host: 'host',
          status,
          size: 1,
          data_timestamp: now,
          ...more,
        })
        .execute();
      return id;
    },
    async setVolume(volumeId, columns) {
      await sql.updateTable('volumes').set(columns).where('id', '=', volumeId).execute();
    },
    async messages() {
      const rows = await sql.selectFrom('messages').selectAll().execute();
      return rows.map((row) => ({ event: row.event_id, resource: row.resource_uuid }));
    },
  };
  return state;
}
