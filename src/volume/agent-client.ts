/**
 * The service's side of the agent protocol: calls, change streams and restore targets of one agent, over HTTP.
 * Enter at createAgentClient. Every answer is parsed, every stream is checked, every failure is a BackupError:
 * absent is `not-found`, unreachable is `agent-unavailable` after the attempts are used up.
 * Idempotent calls are tried again; creating a volume is not.
 */
import { z } from 'zod';
import type { RetryPolicy } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { BackupError, cancelledBy, isBackupError } from '../model/errors.ts';
import { backendNamePattern, requireSnapshotName, requireVolumeName } from '../model/names.ts';
import {
  backendList,
  snapshotInfo,
  snapshotList,
  volumeDetail,
  volumeInfo,
  volumeList,
  type BackendInfo,
  type SnapshotInfo,
  type VolumeDetail,
  type VolumeInfo,
  type VolumeList,
} from '../protocol/calls.ts';
import { createAgentConnection, type AgentAccess } from './agent-connection.ts';
import { createAgentSource, type SourceRequest } from './agent-source.ts';
import type { BlockSource, RestoreTarget } from './block-source.ts';
import { retryAgent } from './busy-agent.ts';
import { openRestoreTarget } from './restore-target.ts';

export type AgentClient = {
  /** The agent's address, for messages. */
  readonly url: string;
  backends(signal: AbortSignal): Promise<readonly BackendInfo[]>;
  /** Volumes, and the names of those that are gone but have snapshots left. */
  listVolumes(backend: string, signal: AbortSignal): Promise<VolumeList>;
  volume(backend: string, volume: string, signal: AbortSignal): Promise<VolumeDetail>;
  createVolume(backend: string, volume: string, sizeBytes: number, signal: AbortSignal): Promise<VolumeInfo>;
  resizeVolume(backend: string, volume: string, sizeBytes: number, signal: AbortSignal): Promise<VolumeInfo>;
  /** Also of a volume that is gone; none if there are none. */
  snapshots(backend: string, volume: string, signal: AbortSignal): Promise<readonly SnapshotInfo[]>;
  /** The snapshot of that name, made if it is absent. */
  createSnapshot(
    backend: string,
    volume: string,
    snapshot: string,
    signal: AbortSignal,
  ): Promise<SnapshotInfo>;
  /** Succeeds also if it is absent, and also if the volume is gone. */
  deleteSnapshot(backend: string, volume: string, snapshot: string, signal: AbortSignal): Promise<void>;
  /** The streams of one snapshot; nothing is asked before one of them is read. */
  source(request: SourceRequest): BlockSource;
  /** A restore into a volume of `lengthBytes`. */
  target(request: {
    readonly backend: string;
    readonly volume: string;
    readonly lengthBytes: number;
    readonly signal: AbortSignal;
  }): Promise<RestoreTarget>;
  /** Closes every connection; what still runs fails. */
  close(): Promise<void>;
};

export type AgentClientOptions = {
  /** `http://host:port` or `https://host:port`, with a path if the agent stands behind one. */
  readonly url: string;
  readonly access: AgentAccess;
  readonly log: Logger;
  readonly retry?: RetryPolicy;
  /** How long an agent that serves as many as it may is waited for: ten minutes unless given. */
  readonly mostBusyMs?: number;
  /** Silence of an agent that breaks a stream; it sends idle frames each 10 s. */
  readonly idleTimeoutMs?: number;
};

/** About half a minute of trying: an agent that is restarted comes back. */
const defaultRetry: RetryPolicy = { attempts: 8, firstDelayMs: 250, maxDelayMs: 10_000 };
const defaultBusyMs = 600_000;
const defaultIdleTimeoutMs = 60_000;
const callTimeoutMs = 60_000;
/** A snapshot may be a copy of the volume where the file system has no reflink. */
const snapshotTimeoutMs = 4 * 3_600_000;

/** Throws `config-invalid` if the address is not one. Names are checked before they become part of a path. */
export function createAgentClient(options: AgentClientOptions): AgentClient {
  const policy = { ...(options.retry ?? defaultRetry), mostBusyMs: options.mostBusyMs ?? defaultBusyMs };
  const idleTimeoutMs = options.idleTimeoutMs ?? defaultIdleTimeoutMs;
  const { access, log } = options;
  const connection = createAgentConnection({ url: options.url, access, idleTimeoutMs });

  const repeated = <T>(call: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> =>
    retryAgent(policy, work, {
      isRetryable: (error) => isBackupError(error) && error.retryable,
      onRetry: (err, attempt, delayMs) =>
        log.warn({ agent: connection.url, call, attempt, delayMs, err }, 'agent call failed: trying again'),
      signal,
    }).catch((error: unknown) => {
      throw signal.aborted ? cancelledBy(signal) : error;
    });

  const get = <T>(path: string, schema: z.ZodType<T>, signal: AbortSignal): Promise<T> =>
    repeated(`GET ${path}`, signal, () =>
      connection.call({ method: 'GET', path, schema, timeoutMs: callTimeoutMs, signal }),
    );

  return {
    url: connection.url,
    backends: async (signal) => (await get('/v1/backends', backendList, signal)).backends,
    listVolumes: async (backend, signal) => get(`${backendPath(backend)}/volumes`, volumeList, signal),
    volume: async (backend, volume, signal) => get(volumePath(backend, volume), volumeDetail, signal),

    createVolume: async (backend, volume, sizeBytes, signal) =>
      connection.call({
        method: 'POST',
        path: `${backendPath(backend)}/volumes`,
        body: { name: requireVolumeName(volume), size_bytes: sizeBytes },
        schema: volumeInfo,
        timeoutMs: callTimeoutMs,
        signal,
      }),

    async resizeVolume(backend, volume, sizeBytes, signal) {
      const path = `${volumePath(backend, volume)}/resize`;
      return repeated(`POST ${path}`, signal, () =>
        connection.call({
          method: 'POST',
          path,
          body: { size_bytes: sizeBytes },
          schema: volumeInfo,
          timeoutMs: callTimeoutMs,
          signal,
        }),
      );
    },

    snapshots: async (backend, volume, signal) =>
      (await get(`${volumePath(backend, volume)}/snapshots`, snapshotList, signal)).snapshots,

    async createSnapshot(backend, volume, snapshot, signal) {
      const path = `${volumePath(backend, volume)}/snapshots`;
      const body = { name: requireSnapshotName(snapshot) };
      return repeated(`POST ${path}`, signal, () =>
        connection.call({
          method: 'POST',
          path,
          body,
          schema: snapshotInfo,
          timeoutMs: snapshotTimeoutMs,
          signal,
        }),
      );
    },

    async deleteSnapshot(backend, volume, snapshot, signal) {
      const path = `${volumePath(backend, volume)}/snapshots/${requireSnapshotName(snapshot)}`;
      await repeated(`DELETE ${path}`, signal, () =>
        connection.call({ method: 'DELETE', path, schema: z.unknown(), timeoutMs: callTimeoutMs, signal }),
      );
    },

    source: (request) =>
      createAgentSource(
        connection,
        volumePath(request.backend, request.volume),
        { ...request, snapshot: requireSnapshotName(request.snapshot) },
        { retry: policy, log },
      ),

    async target({ backend, volume, lengthBytes, signal }) {
      const path = `${volumePath(backend, volume)}/data`;
      return openRestoreTarget({
        url: connection.url,
        access,
        path,
        lengthBytes,
        idleTimeoutMs,
        retry: policy,
        log,
        signal,
      });
    },

    close: () => connection.close(),
  };
}

function backendPath(backend: string): string {
  if (!backendNamePattern.test(backend)) {
    throw new BackupError(
      'message-invalid',
      `backend name ${JSON.stringify(backend.slice(0, 80))} is not valid: it must be letters, digits, ".", "_" and "-"`,
    );
  }
  return `/v1/backends/${backend}`;
}

function volumePath(backend: string, volume: string): string {
  return `${backendPath(backend)}/volumes/${requireVolumeName(volume)}`;
}
