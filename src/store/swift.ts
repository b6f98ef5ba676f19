/**
 * Backups in OpenStack Swift, where Cinder's SwiftBackupDriver finds them (cinder/backup/drivers/swift.py).
 *
 * Entry: `createSwiftStore`. Invariants:
 * - Every put carries the MD5 of its bytes, so that Swift refuses what was changed on the way; every get is checked against it, but
 *   for large objects of a server that does not tell their segments.
 * - An object of more than one segment is a static large object (swift-large-object.ts); to a reader it is one object.
 * - Retries and limits are the wrappers'. Only what a wrapper cannot repeat is repeated here: a segment of a stream, a body
 *   that was cut, a request whose token had expired.
 */
import type { RetryPolicy } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { BackupError, cancelledBy, messageOf, throwIfAborted } from '../model/errors.ts';
import type { HttpResponse } from '../openstack/http.ts';
import { checkedBody, md5Check, md5Of, noCheck, type BodyCheck } from './body-check.ts';
import { clockFinding, type CheckableStore } from './check-store.ts';
import { unquoted } from './etag.ts';
import { requireContainer, requireKey } from './key-rules.ts';
import type { ObjectStore } from './object-store.ts';
import { retryCall } from './retry-call.ts';
import { cutIntoSegments, growingSegments, startingWith } from './segments.ts';
import { createSwiftAccess } from './swift-access.ts';
import { createCapabilities, orUntold } from './swift-capabilities.ts';
import { openSwiftConnections, type SwiftConnections } from './swift-connections.ts';
import { createSwiftExchange } from './swift-exchange.ts';
import {
  cleanUpSegments,
  createManifestCheck,
  putLargeObject,
  removeSegmentsUnder,
  segmentContainer,
  segmentPrefix,
} from './swift-large-object.ts';
import { listedKeys } from './listed-keys.ts';
import { listSwift } from './swift-listing.ts';
import type { ServiceUser, SwiftCaller, SwiftStoreOptions, SwiftTuning } from './swift-options.ts';
import { removeMany, removeOne } from './swift-removal.ts';

export type SwiftDeps = {
  /** A `SwiftConfig` will do. */
  readonly options: SwiftStoreOptions;
  readonly serviceUser: ServiceUser;
  /** What the stores of several callers use together, made of the same options. Whoever gives it closes it. */
  readonly shared?: SwiftConnections | undefined;
  /** `swiftTuning` unless there is a reason. */
  readonly tuning: SwiftTuning;
  /** The request that the store works for; null where there is none (single_user). */
  readonly caller: SwiftCaller | null;
  /** For segments of `putStream`; the same as the wrapper's. */
  readonly retryPolicy: RetryPolicy;
  readonly now: () => number;
  readonly log: Logger;
};

/** Another process may make the first segments of a container, so nothing is taken for absent for longer. */
const unsegmentedForMs = 30_000;

/** Opens no connection yet. Throws `config-invalid` and, without a token in per_user mode, `store-denied`. */
export function createSwiftStore(deps: SwiftDeps): ObjectStore & CheckableStore {
  const { options, tuning, caller, retryPolicy, now, log } = deps;
  const connections = deps.shared ?? openSwiftConnections(options, deps.serviceUser, tuning, now);
  const exchange = createSwiftExchange(
    connections.http,
    createSwiftAccess(options, caller, { ...connections, now }),
  );
  const capabilities = createCapabilities(exchange);
  const manifestCheck = createManifestCheck(exchange, log);
  /** Containers without segments of ours beside them: not asked again for every object that is removed. */
  const unsegmentedUntilMs = new Map<string, number>();

  async function createContainer(container: string, signal: AbortSignal): Promise<void> {
    const found = await exchange.tell({ method: 'HEAD', container, signal, accept: [200, 204, 404] });
    if (found.status !== 404) return;
    if (!options.createContainers) throw absentContainer(container);
    const policy = options.storagePolicy;
    await exchange.tell({
      method: 'PUT',
      container,
      headers: policy === undefined ? {} : { 'x-storage-policy': policy },
      signal,
      accept: [201, 202, 204],
    });
  }

  /** Returns the MD5 of what is stored now. */
  async function putBuffer(
    container: string,
    key: string,
    bytes: Buffer,
    signal: AbortSignal,
    known?: string,
  ): Promise<string> {
    const md5 = known ?? (await md5Of(bytes, signal));
    const answer = await exchange.tell({
      method: 'PUT',
      container,
      key,
      headers: { etag: md5, 'content-type': 'application/octet-stream' },
      body: bytes,
      signal,
      accept: [201],
    });
    const stored = unquoted(answer.header('etag'));
    if (stored === md5) return md5;
    await removeOne(exchange, container, key, signal).catch((error: unknown) => {
      log.warn(
        { container, key, error: messageOf(error) },
        'an object with wrong bytes could not be removed',
      );
    });
    throw new BackupError(
      'corrupt',
      `Swift stored object ${key} in container ${container} with MD5 ${stored} instead of ${md5}: the object is removed; check the server`,
    );
  }

  /** Looks at the ETag itself: to If-Match radosgw compares that of a large object's manifest. */
  const readFrom = async (
    container: string,
    key: string,
    offset: number,
    etag: string,
    signal: AbortSignal,
  ) => {
    const answer = await exchange.send({
      method: 'GET',
      container,
      key,
      headers: { range: `bytes=${offset}-` },
      signal,
      accept: [206],
    });
    if (unquoted(answer.header('etag')) === etag) return answer.body;
    await answer.discard();
    throw replacedWhileRead(container, key);
  };

  const dropSegments = async (container: string, prefix: string, signal: AbortSignal): Promise<void> => {
    if ((unsegmentedUntilMs.get(container) ?? 0) > now()) return;
    const home = segmentContainer(container);
    // Whom only the ACL of the container lets in has never made a container of segments.
    const accept = [200, 204, 403, 404];
    const { status } = await exchange.tell({ method: 'HEAD', container: home, signal, accept });
    if (status >= 400) unsegmentedUntilMs.set(container, now() + unsegmentedForMs);
    else await removeSegmentsUnder(exchange, await orUntold(capabilities(signal)), container, prefix, signal);
  };

  return {
    kind: 'swift',
    service: 'cinder.backup.drivers.swift.SwiftBackupDriver',
    async ensureContainer(container, signal) {
      throwIfAborted(signal);
      await createContainer(requireSwiftContainer(container), signal);
    },
    async put(container, key, body, { signal, md5 }) {
      throwIfAborted(signal);
      await putBuffer(requireSwiftContainer(container), requireKey(key), body, signal, md5);
    },
    async putStream(container, key, body, { signal }) {
      throwIfAborted(signal);
      requireSwiftContainer(container);
      requireKey(key);
      const segments = cutIntoSegments(body, growingSegments(tuning.segmentBytes), signal);
      const first = await segments.next();
      if (first.done === true) throw cancelledBy(signal);
      try {
        if (first.value.last) {
          const { bytes } = first.value;
          await retryCall(retryPolicy, signal, () => putBuffer(container, key, bytes, signal));
          const prefix = segmentPrefix(key);
          await cleanUpSegments(log, container, prefix, (own) => dropSegments(container, prefix, own));
          return;
        }
        unsegmentedUntilMs.delete(container);
        const large = { exchange, capabilities, putBuffer, createContainer, retryPolicy, log };
        await putLargeObject(large, container, key, startingWith(first.value, segments), signal);
      } finally {
        await segments.return(undefined);
      }
    },
    async flush(_container, _prefix, signal) {
      throwIfAborted(signal);
      await Promise.resolve();
    },
    async get(container, key, { signal }) {
      throwIfAborted(signal);
      requireSwiftContainer(container);
      requireKey(key);
      const answer = await exchange.send({ method: 'GET', container, key, signal, accept: [200] });
      const sizeBytes = Number(answer.header('content-length') ?? Number.NaN);
      const etag = unquoted(answer.header('etag'));
      if (!Number.isSafeInteger(sizeBytes)) {
        await answer.discard();
        throw new BackupError(
          'store-unavailable',
          `Swift does not tell the size of object ${key} in ${container}`,
        );
      }
      const check = await checkOf(answer, etag, () => manifestCheck(container, key, signal));
      const body = checkedBody({
        what: `object ${key} in container ${container} of Swift`,
        sizeBytes,
        check,
        first: answer.body,
        reopen: (offset) => readFrom(container, key, offset, etag, signal),
        retryPolicy,
        log,
        signal,
      });
      return { sizeBytes, body };
    },
    list: (container, prefix, signal) => listContainer(container, prefix, signal),
    async remove(container, key, signal) {
      throwIfAborted(signal);
      requireSwiftContainer(container);
      requireKey(key);
      await removeOne(exchange, container, key, signal);
      await dropSegments(container, segmentPrefix(key), signal);
    },
    async removePrefix(container, prefix, signal) {
      throwIfAborted(signal);
      requireSwiftContainer(container);
      requireKey(prefix);
      const keys = listedKeys(listSwift(exchange, container, prefix, signal));
      const able = await orUntold(capabilities(signal));
      const count = await removeMany(exchange, able, container, keys, signal);
      await dropSegments(container, prefix, signal);
      return count;
    },
    async removeContainer(container, signal) {
      throwIfAborted(signal);
      requireSwiftContainer(container);
      await Promise.resolve();
    },
    async check(container, signal) {
      throwIfAborted(signal);
      requireSwiftContainer(container);
      const found = await exchange.tell({ method: 'HEAD', container, signal, accept: [200, 204, 404] });
      if (found.status === 404 && !options.createContainers) throw absentContainer(container);
      const able = await capabilities(signal);
      const policy = options.storagePolicy;
      const made = found.status === 404;
      if (made && policy !== undefined && able.policies?.includes(policy) === false) {
        throw new BackupError(
          'config-invalid',
          `Swift has no storage policy ${policy}, but ${able.policies.join(', ')}: correct backup_swift_create_storage_policy`,
        );
      }
      return [
        ...(made ? [`container ${container} is absent from Swift: the first backup will create it`] : []),
        ...(able.manifestSegments > 0
          ? []
          : ['this Swift has no static large objects: backups of large volumes will fail']),
        ...clockFinding(found.header('date'), now()),
      ];
    },
    async close() {
      if (deps.shared === undefined) await connections.close();
    },
  };

  async function* listContainer(container: string, prefix: string, signal: AbortSignal) {
    throwIfAborted(signal);
    yield* listSwift(exchange, requireSwiftContainer(container), prefix, signal);
  }
}

async function checkOf(
  answer: HttpResponse,
  etag: string,
  ofManifest: () => Promise<BodyCheck>,
): Promise<BodyCheck> {
  if (answer.header('x-static-large-object')?.toLowerCase() === 'true') {
    try {
      return await ofManifest();
    } catch (error) {
      await answer.discard();
      throw error;
    }
  }
  return answer.header('x-object-manifest') === null && /^[0-9a-f]{32}$/.test(etag)
    ? md5Check(etag)
    : noCheck;
}

function replacedWhileRead(container: string, key: string): BackupError {
  return new BackupError(
    'store-unavailable',
    `object ${key} in container ${container} was replaced while it was read: start the operation again`,
    { retryable: false },
  );
}

function absentContainer(container: string): BackupError {
  return new BackupError(
    'object-missing',
    `container ${container} is absent from Swift, and backup_create_containers is false: create it, or name one that exists`,
  );
}

/** Swift's own rules for container names on top of the layout's. */
function requireSwiftContainer(container: string): string {
  requireContainer(container);
  if (!container.includes('/') && Buffer.byteLength(segmentContainer(container)) <= 256) return container;
  throw new BackupError(
    'message-invalid',
    `container ${JSON.stringify(container)} cannot be one of Swift: it must have no "/" and at most 247 bytes`,
  );
}
