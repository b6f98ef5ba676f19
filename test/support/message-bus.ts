/** A bus over any broker, configured as from cinder.conf. */
import { openMessageBus, type MessageBus } from '../../src/bus/message-bus.ts';
import { parseConfigFile } from '../../src/config/config-files.ts';
import { serviceConfigOf } from '../../src/config/service-config.ts';
import { createLogger, type Logger } from '../../src/log.ts';

export type TestBusOptions = {
  readonly url: string;
  readonly host: string;
  /** Lines for [oslo_messaging_rabbit]. */
  readonly rabbit?: string;
  /** Lines for [oslo_messaging_notifications]. */
  readonly notifications?: string;
  /** Lines for [DEFAULT]. */
  readonly general?: string;
  readonly log?: Logger;
};

/** Notifications are on; the time stands still at 2026-11-22T10:00:00.250Z. */
export function openTestBus(options: TestBusOptions): MessageBus {
  const { url, host, rabbit = '', notifications = '', general = '', log } = options;
  const text = `[DEFAULT]
transport_url = ${url}
backup_driver = cinder.backup.drivers.posix.PosixBackupDriver
rpc_response_timeout = 20
${general}
[database]
connection = sqlite:////nowhere
[oslo_messaging_notifications]
driver = messagingv2
${notifications}
[oslo_messaging_rabbit]
${rabbit}
`;
  const { config } = serviceConfigOf({ files: [parseConfigFile('cinder.conf', text, [])], problems: [] });
  return openMessageBus({
    config: config.messaging,
    host,
    programName: 'cinder-delta',
    clock: { now: () => new Date('2026-11-22T10:00:00.250Z') },
    log: log ?? createLogger({ level: process.env['TEST_LOG'] ?? 'silent' }),
  });
}
