/**
 * Notifications for Ceilometer and its like (oslo_messaging/notify/, cinder/volume/volume_utils.py, _usage_from_backup): to
 * the queue `<topic>.info` of each topic, with envelope (messagingv2) or without (messaging). A notification that cannot
 * be sent is logged; it never fails the operation that it tells of.
 *
 * Bound: `limit` notifications, of some 2 KiB, wait for a broker that is away; the oldest goes for one more. How long one waits
 * says `retry` of [oslo_messaging_notifications], by default until the service stops.
 */
import { randomUUID } from 'node:crypto';
import { anySignal } from '../async/any-signal.ts';
import type { BrokerConfig, NotificationConfig, QueueConfig } from '../config/messaging-config.ts';
import type { Logger } from '../log.ts';
import type { Backup } from '../model/backup.ts';
import type { Clock } from '../model/clock.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import { withoutSecrets, type BusContext } from './bus-context.ts';
import { encodeEnvelope, encodePlain, type Json, type JsonObject } from './envelope.ts';
import type { Publisher } from './publisher.ts';
import { renderContext } from './rpc-message.ts';
import { notificationQueue, topicExchange } from './topology.ts';
import { uniqueId } from './unique-id.ts';

export type Notifier = {
  /** Sends `backup.<suffix>`, for example `create.start`; `extra` goes into the payload beside the usage of the backup. */
  notifyBackup(context: BusContext, backup: Backup, suffix: string, extra?: JsonObject): void;
  /** Waits until all that was notified has been sent or given up. */
  settle(): Promise<void>;
};

export type NotifierDeps = {
  readonly config: NotificationConfig;
  readonly queues: QueueConfig;
  readonly publisher: Publisher;
  /** How the publisher's connection is tried again. */
  readonly reconnect: BrokerConfig['retry'];
  /** Aborts after so long. */
  readonly timeout: (ms: number) => AbortSignal;
  /** `host` of the configuration. */
  readonly host: string;
  readonly clock: Clock;
  readonly log: Logger;
};

const limit = 1000;
/** What one try to reach the broker may take. */
const tryMs = 5000;

type Job = { readonly eventType: string; readonly drop: AbortController; done: Promise<void> };

export function createNotifier(deps: NotifierDeps): Notifier {
  const { config, queues, publisher, reconnect, host, clock, log } = deps;
  const underWay = new Set<Job>();
  let isFull = false;
  let lost = 0;

  function makeRoom(): void {
    const [oldest] = underWay;
    if (oldest === undefined || underWay.size < limit) return;
    oldest.drop.abort(new BackupError('cancelled', 'a newer notification has taken its place'));
    underWay.delete(oldest);
    if (!isFull) {
      log.warn(
        { waiting: limit },
        'too many notifications wait for the message broker: the oldest are dropped',
      );
    }
    isFull = true;
  }

  /** A topic that cannot be reached does not silence the others. */
  async function sendTo(topic: string, { eventType, drop }: Job, content: Buffer): Promise<void> {
    const { signal: dropped } = drop;
    const signal =
      config.retries < 0
        ? dropped
        : anySignal([dropped, deps.timeout(patienceMs(config.retries, reconnect))]);
    const routingKey = `${topic}.info`;
    const queue = notificationQueue(queues, routingKey);
    try {
      await publisher.publish({ exchange: topicExchange(queues), routingKey, content, queue }, signal);
    } catch (error) {
      if (dropped.aborted) return;
      if (isBackupError(error, 'cancelled') && !signal.aborted) lost += 1;
      else log.error({ err: error, event_type: eventType, topic }, 'a notification could not be sent');
    }
  }

  async function follow(job: Job, message: JsonObject): Promise<void> {
    const content = config.format === 'messagingv2' ? encodeEnvelope(message) : encodePlain(message);
    for (const topic of config.topics) await sendTo(topic, job, content);
    underWay.delete(job);
    isFull &&= underWay.size > 0;
  }

  return {
    notifyBackup(context, backup, suffix, extra = {}) {
      if (config.format === 'off') return;
      const eventType = `backup.${suffix}`;
      makeRoom();
      const message = {
        message_id: randomUUID(),
        publisher_id: `backup.${host}`,
        event_type: eventType,
        priority: 'INFO',
        payload: { ...usageOf(backup), ...extra },
        timestamp: pythonTime(clock.now()),
        _unique_id: uniqueId(),
        ...renderContext(withoutSecrets(context.items)),
      };
      const job: Job = { eventType, drop: new AbortController(), done: Promise.resolve() };
      underWay.add(job);
      job.done = follow(job, message);
    },
    async settle() {
      while (underWay.size > 0) await Promise.all(Array.from(underWay, ({ done }) => done));
      if (lost > 0) log.warn({ lost }, 'notifications were not sent: the message broker was away');
      lost = 0;
    },
  };
}

/** What oslo.messaging takes for a try and `retries` more (impl_rabbit.py, ensure): the waits between them grow. */
function patienceMs(retries: number, { firstMs, stepMs, maxMs }: BrokerConfig['retry']): number {
  let patience = tryMs;
  for (let tries = 0; tries < Math.min(retries, 10_000); tries += 1) {
    patience += tryMs + Math.min(firstMs + tries * stepMs, Math.max(maxMs, firstMs));
  }
  return Math.min(patience, 2 ** 31 - 1);
}

/** What a notification says of a backup, in Cinder's names and order. */
export function usageOf(backup: Backup): Readonly<Record<string, Json>> {
  return {
    tenant_id: backup.projectId,
    user_id: backup.userId,
    availability_zone: backup.availabilityZone,
    backup_id: backup.id,
    host: backup.host,
    display_name: backup.name,
    created_at: `${backup.createdAt.toISOString().slice(0, 19)}+00:00`,
    status: backup.status,
    volume_id: backup.volumeId,
    size: backup.sizeGiB,
    service_metadata: backup.prefix,
    service: backup.service,
    fail_reason: backup.failReason,
    parent_id: backup.parentId,
    num_dependent_backups: backup.dependents,
    snapshot_id: backup.snapshotId,
  };
}

/** Python's `str(datetime)` of a time without zone, with microseconds. */
function pythonTime(date: Date): string {
  return `${date.toISOString().replace('T', ' ').replace('Z', '')}000`;
}
