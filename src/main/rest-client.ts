/** The service's REST API as the demo, the bench and the tests use it: every answer is checked, every wait has an end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { BackupError } from '../model/errors.ts';
import { backupDetail, backupDetails } from '../rest/backup-schemas.ts';
import {
  operationAnswer,
  operationsAnswer,
  type operationSummary,
  type operationView,
} from '../rest/operation-schemas.ts';
import { volumeDetail } from '../rest/volume-schemas.ts';

const withId = z.looseObject({ id: z.string() });

export type BackupView = z.infer<typeof backupDetail>;
export type VolumeView = z.infer<typeof volumeDetail>;
export type OperationView = z.infer<typeof operationView>;
export type OperationSummary = z.infer<typeof operationSummary>;

export type BackupRequest = {
  readonly volumeId: string;
  readonly name?: string;
  readonly incremental?: boolean;
};

export type RestClient = {
  readonly url: string;
  /** Any call: the parsed JSON answer, undefined for one without a body. Throws RestError unless the status is 2xx. */
  call(method: string, path: string, body?: unknown): Promise<unknown>;
  createVolume(name: string, sizeGiB: number): Promise<string>;
  volume(id: string): Promise<VolumeView>;
  createBackup(request: BackupRequest): Promise<string>;
  backup(id: string): Promise<BackupView>;
  backups(): Promise<readonly BackupView[]>;
  /** Restores into a volume, or into a new one; returns the volume's id. */
  restore(backupId: string, volumeId?: string): Promise<string>;
  deleteBackup(id: string): Promise<void>;
  forceDelete(id: string): Promise<void>;
  /** Starts a verify; returns the operation's id. */
  startVerify(backupId: string): Promise<string>;
  /** Waits until the operation has ended, well or not; `onProgress` is told of it meanwhile. */
  finished(operationId: string, onProgress?: (operation: OperationView) => void): Promise<OperationView>;
  operation(id: string): Promise<OperationView>;
  /** Of one backup, or all; running ones first, then the finished, each the newest first. */
  operations(backupId?: string): Promise<readonly OperationSummary[]>;
  /** Waits until the backup has left `creating`, `restoring`, `deleting`; undefined when it is gone. */
  settled(backupId: string): Promise<BackupView | undefined>;
};

/** An answer that is not 2xx. */
export class RestError extends Error {
  readonly httpStatus: number;

  constructor(httpStatus: number, message: string) {
    super(message);
    this.httpStatus = httpStatus;
  }
}

const passing = new Set(['creating', 'restoring', 'deleting']);
const pollMs = 20;
/** The longest wait of one request. */
const waitSeconds = 50;

/** A client of the service at `url`, for the project `project`; no wait is longer than `signal` lives. */
export function createRestClient(url: string, signal: AbortSignal, project = 'demo'): RestClient {
  const v3 = `/v3/${project}`;

  async function call(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(new URL(path, url), {
      method,
      signal,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    const text = await response.text();
    if (!response.ok) {
      throw new RestError(response.status, `${method} ${path} answered ${response.status}: ${text}`);
    }
    return text === '' ? undefined : JSON.parse(text);
  }

  async function backup(id: string): Promise<BackupView> {
    return z.object({ backup: backupDetail }).parse(await call('GET', `${v3}/backups/${id}`)).backup;
  }

  async function operation(id: string, wait = 0): Promise<OperationView> {
    return operationAnswer.parse(await call('GET', `/v1/operations/${id}?wait=${wait}`)).operation;
  }

  async function operations(backupId?: string): Promise<readonly OperationSummary[]> {
    const query = backupId === undefined ? '' : `?backup_id=${backupId}`;
    return operationsAnswer.parse(await call('GET', `/v1/operations${query}`)).operations;
  }

  /** Waits for the end of what runs on the backup, or a moment if nothing does. */
  async function pass(backupId: string): Promise<void> {
    const [newest] = await operations(backupId);
    if (newest === undefined || newest.finished_at !== null) await sleep(pollMs, undefined, { signal });
    else await operation(newest.id, waitSeconds);
  }

  return {
    url,
    call,
    async createVolume(name, size) {
      const answer = await call('POST', `${v3}/volumes`, { volume: { name, size } });
      return z.object({ volume: withId }).parse(answer).volume.id;
    },
    async volume(id) {
      return z.object({ volume: volumeDetail }).parse(await call('GET', `${v3}/volumes/${id}`)).volume;
    },
    async createBackup({ volumeId, name, incremental }) {
      const answer = await call('POST', `${v3}/backups`, {
        backup: { volume_id: volumeId, name: name ?? null, incremental: incremental ?? false },
      });
      return z.object({ backup: withId }).parse(answer).backup.id;
    },
    backup,
    async backups() {
      return backupDetails.parse(await call('GET', `${v3}/backups/detail`)).backups;
    },
    async restore(backupId, volumeId) {
      const restore = volumeId === undefined ? {} : { volume_id: volumeId };
      const answer = await call('POST', `${v3}/backups/${backupId}/restore`, { restore });
      return z.object({ restore: z.looseObject({ volume_id: z.string() }) }).parse(answer).restore.volume_id;
    },
    async deleteBackup(id) {
      await call('DELETE', `${v3}/backups/${id}`);
    },
    async forceDelete(id) {
      await call('POST', `${v3}/backups/${id}/action`, { 'os-force_delete': {} });
    },
    async startVerify(backupId) {
      const answer = await call('POST', `/v1/backups/${backupId}/verify`);
      return z.object({ operation: withId }).parse(answer).operation.id;
    },
    operation: (id) => operation(id),
    async finished(id, onProgress) {
      for (;;) {
        const found = await operation(id, onProgress === undefined ? waitSeconds : 0);
        if (found.finished_at !== null) return found;
        if (onProgress === undefined) continue;
        onProgress(found);
        await sleep(pollMs, undefined, { signal });
      }
    },
    operations,
    async settled(backupId) {
      for (;;) {
        try {
          const found = await backup(backupId);
          if (!passing.has(found.status)) return found;
        } catch (error) {
          if (error instanceof RestError && error.httpStatus === 404) return undefined;
          throw error;
        }
        await pass(backupId);
      }
    },
  };
}

/** Throws with the backup's fail_reason unless it is available. */
export function requireAvailable(backup: BackupView | undefined): BackupView {
  if (backup?.status === 'available') return backup;
  const state =
    backup === undefined ? 'gone' : `${backup.status}: ${backup.fail_reason ?? 'no reason given'}`;
  throw new BackupError('state-invalid', `the backup should be available, but it is ${state}`);
}
