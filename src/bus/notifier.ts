/**
 * Notifications for Ceilometer and its like (oslo_messaging/notify/, cinder/volume/volume_utils.py, _usage_from_backup): to
 * the queue `<topic>.info` of each topic, with envelope (messagingv2) or without (messaging). A notification that cannot
 * be sent is logged; it never fails the operation that it tells of.
 */
import { randomUUID } from 'node:crypto';
import type { NotificationConfig, QueueConfig } from '../config/messaging-config.ts';
import type { Logger } from '../log.ts';
import type { Backup } from '../model/backup.ts';
import type { Clock } from '../model/clock.ts';
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
  /** `host` of the configuration. */
  readonly host: string;
  readonly clock: Clock;
  readonly log: Logger;
};

/** A notification waits this long for the broker; more than `limit` that wait are dropped. */
const giveUpMs = 60_000;
const limit = 1000;

export function createNotifier({ config, queues, publisher, host, clock, log }: NotifierDeps): Notifier {
  const underWay = new Set<Promise<void>>();

  async function send(eventType: string, message: JsonObject): Promise<void> {
    const content = config.format === 'messagingv2' ? encodeEnvelope(message) : encodePlain(message);
    try {
      for (const topic of config.topics) {
        const routingKey = `${topic}.info`;
        const queue = notificationQueue(queues, routingKey);
        const publication = { exchange: topicExchange(queues), routingKey, content, queue };
        await publisher.publish(publication, AbortSignal.timeout(giveUpMs));
      }
    } catch (error) {
      log.error({ err: error, event_type: eventType }, 'a notification could not be sent');
    }
  }

  return {
    notifyBackup(context, backup, suffix, extra = {}) {
      if (config.format === 'off') return;
      const eventType = `backup.${suffix}`;
      if (underWay.size >= limit) {
        log.error(
          { event_type: eventType, waiting: limit },
          'too many notifications wait for the message broker: one is dropped',
        );
        return;
      }
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
      const job = send(eventType, message).finally(() => underWay.delete(job));
      underWay.add(job);
    },
    async settle() {
      while (underWay.size > 0) await Promise.all(underWay);
    },
  };
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
