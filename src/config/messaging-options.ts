/**
 * Options of the message bus: names, types and defaults of oslo.messaging (transport.py, _drivers/impl_rabbit.py,
 * _drivers/amqp.py, notify/notifier.py, rpc/dispatcher.py), 14.0 (Zed) to 17.x (2026.1). A default that changed
 * between them has no effect on what peers see.
 */
import { hostname } from 'node:os';
import { choice, flag, integer, list, multiString, number, text } from './option.ts';

/** [DEFAULT] */
export const transportOptions = {
  transport_url: text({ default: 'rabbit://', secret: true }),
  control_exchange: text({ default: 'openstack' }),
  rpc_response_timeout: integer({ default: 60 }),
  rpc_ping_enabled: flag({ default: false }),
};

const inDefault = [{ group: 'DEFAULT' }];

/** [oslo_messaging_rabbit] */
export const rabbitOptions = {
  amqp_durable_queues: flag({ default: false }),
  amqp_auto_delete: flag({ default: false, aliases: inDefault }),
  ssl: flag({ default: false, aliases: [{ name: 'rabbit_use_ssl' }] }),
  ssl_version: text({ default: '', aliases: [{ name: 'kombu_ssl_version' }] }),
  ssl_key_file: text({ default: '', aliases: [{ name: 'kombu_ssl_keyfile' }] }),
  ssl_cert_file: text({ default: '', aliases: [{ name: 'kombu_ssl_certfile' }] }),
  ssl_ca_file: text({ default: '', aliases: [{ name: 'kombu_ssl_ca_certs' }] }),
  ssl_enforce_hostname_verification: flag({ default: false }),
  kombu_reconnect_delay: number({ default: 1, min: 0, max: 4.5, aliases: inDefault }),
  kombu_reconnect_splay: number({ default: 0, min: 0 }),
  kombu_missing_consumer_retry_timeout: integer({
    default: 60,
    aliases: [{ name: 'kombu_reconnect_timeout' }],
  }),
  kombu_failover_strategy: choice(['round-robin', 'shuffle'], { default: 'round-robin' }),
  rabbit_login_method: choice(['PLAIN', 'AMQPLAIN', 'EXTERNAL', 'RABBIT-CR-DEMO'], {
    default: 'AMQPLAIN',
    aliases: inDefault,
  }),
  rabbit_retry_interval: integer({ default: 1 }),
  rabbit_retry_backoff: integer({ default: 2, aliases: inDefault }),
  rabbit_interval_max: integer({ default: 30 }),
  rabbit_ha_queues: flag({ default: false, aliases: inDefault }),
  rabbit_quorum_queue: flag({ default: false }),
  rabbit_transient_quorum_queue: flag({ default: false }),
  rabbit_quorum_delivery_limit: integer({ default: 0 }),
  rabbit_quorum_max_memory_length: integer({
    default: 0,
    aliases: [{ name: 'rabbit_quroum_max_memory_length' }],
  }),
  rabbit_quorum_max_memory_bytes: integer({
    default: 0,
    aliases: [{ name: 'rabbit_quroum_max_memory_bytes' }],
  }),
  rabbit_transient_queues_ttl: integer({ default: 1800, min: 0 }),
  rabbit_qos_prefetch_count: integer({ default: 0 }),
  rabbit_stream_fanout: flag({ default: false }),
  use_queue_manager: flag({ default: false }),
  hostname: text({ default: hostname() }),
  processname: text({ default: 'cinder-backup' }),
  heartbeat_timeout_threshold: integer({ default: 60 }),
  enable_cancel_on_failover: flag({ default: false }),
  direct_mandatory_flag: flag({ default: true }),
};

/** [oslo_messaging_notifications] */
export const notificationOptions = {
  driver: multiString({ aliases: [{ group: 'DEFAULT', name: 'notification_driver' }] }),
  transport_url: text({
    secret: true,
    aliases: [{ group: 'DEFAULT', name: 'notification_transport_url' }],
  }),
  topics: list({
    default: ['notifications'],
    aliases: [
      { group: 'rpc_notifier2', name: 'topics' },
      { group: 'DEFAULT', name: 'notification_topics' },
    ],
  }),
  retry: integer({ default: -1 }),
};
