/** Notifications and a broker that is away. */
import { expect, test } from 'vitest';
import { z } from 'zod';
import { adminContext } from '../../src/bus/bus-context.ts';
import { createNotifier } from '../../src/bus/notifier.ts';
import type { Publisher } from '../../src/bus/publisher.ts';
import { parseConfigFile } from '../../src/config/config-files.ts';
import { serviceConfigOf } from '../../src/config/service-config.ts';
import { createLogger } from '../../src/log.ts';
import type { Backup } from '../../src/model/backup.ts';
import { BackupError, cancelledBy } from '../../src/model/errors.ts';

const context = adminContext('req-1', new Date(0));
const line = z.object({ msg: z.string() });
const notification = z.object({ payload: z.object({ backup_id: z.string() }) });

function backupOf(id: string): Backup {
  return {
    id,
    projectId: 'p',
    userId: 'u',
    volumeId: 'v1',
    snapshotId: null,
    parentId: null,
    name: null,
    description: null,
    status: 'creating',
    failReason: null,
    host: 'node1',
    availabilityZone: 'nova',
    container: null,
    prefix: null,
    service: null,
    sizeGiB: 1,
    objectCount: null,
    restoreVolumeId: null,
    dependents: 0,
    dataTimestamp: null,
    encryptionKeyId: null,
    createdAt: new Date(0),
    updatedAt: null,
    deleted: false,
  };
}

/** A notifier, and a broker that is away until it comes back or the link to it is closed. */
function setUp(more: string) {
  const text = `[DEFAULT]
transport_url = rabbit://h/
backup_driver = cinder.backup.drivers.posix.PosixBackupDriver
[database]
connection = sqlite:////nowhere
[oslo_messaging_notifications]
driver = messaging
${more}
`;
  const { config } = serviceConfigOf({ files: [parseConfigFile('/cinder.conf', text, [])], problems: [] });
  const { messaging } = config;
  const sent: string[] = [];
  const logged: string[] = [];
  const limits: number[] = [];
  const late = new AbortController();
  const back = Promise.withResolvers<void>();
  const refuse = new Set<string>();
  const publisher: Publisher = {
    async publish({ content, routingKey }, signal) {
      if (refuse.has(routingKey)) throw new BackupError('config-invalid', `the broker refuses ${routingKey}`);
      const { promise: left, reject } = Promise.withResolvers<never>();
      signal.addEventListener('abort', () => reject(cancelledBy(signal)), { once: true });
      await Promise.race([back.promise, left]);
      sent.push(notification.parse(JSON.parse(content.toString())).payload.backup_id);
      return 'routed';
    },
  };
  const notifier = createNotifier({
    config: messaging.notifications,
    queues: messaging.queues,
    publisher,
    reconnect: messaging.broker.retry,
    timeout: (ms) => {
      limits.push(ms);
      return late.signal;
    },
    host: 'node1',
    clock: { now: () => new Date(0) },
    log: createLogger({
      level: 'warn',
      destination: { write: (written) => void logged.push(line.parse(JSON.parse(written)).msg) },
    }),
  });
  const notify = (id: string) => notifier.notifyBackup(context, backupOf(id), 'create.end');
  return { notifier, notify, sent, logged, limits, late, back, refuse };
}

test('a notification waits for the broker as long as it is away', async () => {
  const { notifier, notify, sent, logged, limits, back } = setUp('');
  notify('b1');
  notify('b2');
  expect(limits).toEqual([]);
  back.resolve();
  await notifier.settle();
  expect(sent).toEqual(['b1', 'b2']);
  expect(logged).toEqual([]);
});

test('with a number of tries it is given up when oslo.messaging would give it up', async () => {
  const { notifier, notify, sent, logged, limits, late } = setUp('retry = 3');
  notify('b1');
  expect(limits).toEqual([4 * 5000 + 1000 + 3000 + 5000]);
  late.abort(new Error('late'));
  await notifier.settle();
  expect(sent).toEqual([]);
  expect(logged).toEqual(['a notification could not be sent']);
});

test('of more than a thousand that wait the oldest are dropped, and that is told once', async () => {
  const { notifier, notify, sent, logged, back } = setUp('');
  for (let at = 0; at < 1005; at += 1) notify(`b${at}`);
  expect(logged).toEqual(['too many notifications wait for the message broker: the oldest are dropped']);
  back.resolve();
  await notifier.settle();
  expect(sent).toHaveLength(1000);
  expect([sent[0], sent.at(-1)]).toEqual(['b5', 'b1004']);
  expect(logged).toHaveLength(1);
});

test('a topic whose queue is refused does not silence the next', async () => {
  const { notifier, notify, sent, logged, back, refuse } = setUp('topics = wrong,right');
  refuse.add('wrong.info');
  back.resolve();
  notify('b1');
  await notifier.settle();
  expect(sent).toEqual(['b1']);
  expect(logged).toEqual(['a notification could not be sent']);
});

test('what still waits when the service stops is told in one line', async () => {
  const { notifier, notify, logged, back } = setUp('');
  for (const id of ['b1', 'b2', 'b3']) notify(id);
  back.reject(new BackupError('cancelled', 'the link is closed'));
  await notifier.settle();
  expect(logged).toEqual(['notifications were not sent: the message broker was away']);
});
