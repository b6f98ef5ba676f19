/** The message bus, from `transport_url`, [oslo_messaging_rabbit] and [oslo_messaging_notifications]. */
import { isBackupError } from '../model/errors.ts';
import { notificationOptions, rabbitOptions, transportOptions } from './messaging-options.ts';
import type { Option, ValuesOf } from './option.ts';
import type { Settings } from './settings.ts';
import { parseTransportUrl, type BrokerHost, type TransportUrl } from './transport-url.ts';

export type BrokerConfig = {
  /** Tried in turn, until one answers. */
  readonly hosts: readonly BrokerHost[];
  readonly virtualHost: string;
  readonly loginMethod: 'PLAIN' | 'AMQPLAIN' | 'EXTERNAL';
  readonly shuffleHosts: boolean;
  readonly heartbeatSeconds: number;
  readonly tls: BrokerTls | undefined;
  /** Waits between tries: first, growth for each further one, and the most. */
  readonly retry: { readonly firstMs: number; readonly stepMs: number; readonly maxMs: number };
};

export type BrokerTls = {
  /** Without it the broker's certificate is not checked, as in oslo.messaging. */
  readonly caFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly verifyHostname: boolean;
};

/** How queues and exchanges are declared: must be the same in all services on one broker. */
export type QueueConfig = {
  readonly controlExchange: string;
  readonly durable: boolean;
  readonly autoDelete: boolean;
  readonly haQueues: boolean;
  readonly quorum: boolean;
  readonly transientQuorum: boolean;
  readonly quorumDeliveryLimit: number;
  readonly quorumMaxMemoryLength: number;
  readonly quorumMaxMemoryBytes: number;
  /** Fanout and reply queues without a consumer go after this time; 0: never. */
  readonly transientTtlSeconds: number;
  readonly streamFanout: boolean;
  /** 0: no limit. */
  readonly prefetchCount: number;
  readonly cancelOnFailover: boolean;
  /** Names of fanout and reply queues: fixed by host and process name, or random. */
  readonly queueNames: { readonly hostname: string; readonly processName: string } | 'random';
};

export type MessagingConfig = {
  readonly broker: BrokerConfig;
  readonly queues: QueueConfig;
  readonly responseTimeoutSeconds: number;
  /** How long a reply is tried again while its queue is missing. */
  readonly missingReplyQueueSeconds: number;
  readonly pingEnabled: boolean;
  readonly notifications: NotificationConfig;
};

export type NotificationConfig = {
  /** Format of notifications; `off` if no driver of them is configured. */
  readonly format: 'off' | 'messaging' | 'messagingv2';
  /** Undefined: the broker of the RPC. */
  readonly broker: BrokerConfig | undefined;
  readonly topics: readonly string[];
  /** Tries after the first; negative: for ever. */
  readonly retries: number;
};

/** Reads the sections; every problem is noted in the settings. */
export function readMessagingConfig(settings: Settings): MessagingConfig {
  const transport = settings.read('DEFAULT', transportOptions);
  const section = settings.read('oslo_messaging_rabbit', rabbitOptions);
  const notifications = settings.read('oslo_messaging_notifications', notificationOptions);
  const url = readUrl(settings, 'DEFAULT', transport.transport_url);
  const ownUrl =
    notifications.transport_url === undefined
      ? undefined
      : readUrl(settings, 'oslo_messaging_notifications', notifications.transport_url);
  const rabbit = overrideByQuery(settings, 'DEFAULT', section, url.query);
  const ownRabbit = overrideByQuery(
    settings,
    'oslo_messaging_notifications',
    section,
    ownUrl?.query ?? new Map(),
  );
  checkRabbit(settings, rabbit);
  return {
    broker: brokerOf(url, rabbit),
    queues: queuesOf(transport.control_exchange, rabbit),
    responseTimeoutSeconds: transport.rpc_response_timeout,
    missingReplyQueueSeconds: rabbit.kombu_missing_consumer_retry_timeout,
    pingEnabled: transport.rpc_ping_enabled,
    notifications: {
      format: formatOf(settings, notifications.driver),
      broker: ownUrl === undefined ? undefined : brokerOf(ownUrl, ownRabbit),
      topics: notifications.topics,
      retries: notifications.retry,
    },
  };
}

type RabbitValues = ValuesOf<typeof rabbitOptions>;

const nowhere: TransportUrl = { scheme: 'rabbit', hosts: [], virtualHost: '/', query: new Map() };

function readUrl(settings: Settings, section: string, text: string): TransportUrl {
  try {
    const url = parseTransportUrl(text);
    if (['rabbit', 'kombu', 'amqp'].includes(url.scheme)) return url;
    settings.reject(
      section,
      'transport_url',
      `"${url.scheme}" is not supported; it must be rabbit://user:password@host:port/virtual_host`,
    );
  } catch (error) {
    if (!isBackupError(error, 'config-invalid')) throw error;
    settings.reject(section, 'transport_url', error.message);
  }
  return nowhere;
}

/** The options of the URL's query go before those of the section (oslo_messaging/_drivers/common.py, ConfigOptsProxy). */
function overrideByQuery(
  settings: Settings,
  section: string,
  values: RabbitValues,
  query: TransportUrl['query'],
): RabbitValues {
  const overrides: Record<string, unknown> = {};
  const options: Readonly<Record<string, Option<unknown>>> = rabbitOptions;
  for (const [name, text] of query) {
    const option = Object.hasOwn(options, name) ? options[name] : undefined;
    const parsed = option?.type.parse([text]);
    if (parsed === undefined) {
      settings.reject(section, 'transport_url', `its option ${name} is not one of [oslo_messaging_rabbit]`);
    } else if (parsed.ok) {
      overrides[name] = parsed.value;
    } else {
      settings.reject(section, 'transport_url', `its option ${name} must be ${parsed.expected}`);
    }
  }
  return { ...values, ...overrides };
}

function checkRabbit(settings: Settings, rabbit: RabbitValues): void {
  const reject = (option: keyof RabbitValues, reason: string) =>
    settings.reject('oslo_messaging_rabbit', option, reason);
  if (rabbit.rabbit_quorum_queue && rabbit.rabbit_ha_queues) {
    reject('rabbit_ha_queues', 'a queue is mirrored or quorum, not both: unset this or rabbit_quorum_queue');
  }
  if (rabbit.rabbit_stream_fanout && rabbit.rabbit_qos_prefetch_count <= 0) {
    reject('rabbit_qos_prefetch_count', 'rabbit_stream_fanout needs it to be above 0');
  }
  if (rabbit.rabbit_stream_fanout && !rabbit.rabbit_transient_quorum_queue) {
    reject('rabbit_transient_quorum_queue', 'rabbit_stream_fanout needs it to be true');
  }
  if (rabbit.rabbit_login_method === 'RABBIT-CR-DEMO') {
    reject('rabbit_login_method', 'cinder-delta can log in with PLAIN, AMQPLAIN or EXTERNAL');
  }
}

function brokerOf(url: TransportUrl, rabbit: RabbitValues): BrokerConfig {
  const login = rabbit.rabbit_login_method;
  return {
    hosts: url.hosts,
    virtualHost: url.virtualHost,
    loginMethod: login === 'PLAIN' || login === 'EXTERNAL' ? login : 'AMQPLAIN',
    shuffleHosts: rabbit.kombu_failover_strategy === 'shuffle',
    heartbeatSeconds: Math.max(0, rabbit.heartbeat_timeout_threshold),
    tls: rabbit.ssl
      ? {
          caFile: rabbit.ssl_ca_file || undefined,
          certFile: rabbit.ssl_cert_file || undefined,
          keyFile: rabbit.ssl_key_file || undefined,
          verifyHostname: rabbit.ssl_enforce_hostname_verification,
        }
      : undefined,
    retry: {
      firstMs: rabbit.rabbit_retry_interval * 1000,
      stepMs: rabbit.rabbit_retry_backoff * 1000,
      maxMs: rabbit.rabbit_interval_max * 1000,
    },
  };
}

function queuesOf(controlExchange: string, rabbit: RabbitValues): QueueConfig {
  return {
    controlExchange,
    durable: rabbit.amqp_durable_queues || rabbit.rabbit_quorum_queue,
    autoDelete: rabbit.amqp_auto_delete,
    haQueues: rabbit.rabbit_ha_queues,
    quorum: rabbit.rabbit_quorum_queue,
    transientQuorum: rabbit.rabbit_transient_quorum_queue,
    quorumDeliveryLimit: rabbit.rabbit_quorum_delivery_limit,
    quorumMaxMemoryLength: rabbit.rabbit_quorum_max_memory_length,
    quorumMaxMemoryBytes: rabbit.rabbit_quorum_max_memory_bytes,
    transientTtlSeconds: rabbit.rabbit_transient_queues_ttl,
    streamFanout: rabbit.rabbit_stream_fanout,
    prefetchCount: rabbit.rabbit_qos_prefetch_count,
    cancelOnFailover: rabbit.enable_cancel_on_failover,
    queueNames: rabbit.use_queue_manager
      ? { hostname: rabbit.hostname, processName: rabbit.processname }
      : 'random',
  };
}

/** Of the drivers of oslo.messaging, those that reach the bus; `noop`, `log` and the like send nothing. */
function formatOf(settings: Settings, drivers: readonly string[]): NotificationConfig['format'] {
  const known = ['messaging', 'messagingv2', 'noop', 'log', 'test', 'routing', ''];
  for (const driver of drivers) {
    if (!known.includes(driver)) {
      settings.reject('oslo_messaging_notifications', 'driver', 'it must be messagingv2, messaging or noop');
    } else if (driver === 'log' || driver === 'routing') {
      settings.warnings.push(
        `[oslo_messaging_notifications] driver = ${driver} is not supported: no notification is sent by it`,
      );
    }
  }
  if (drivers.includes('messagingv2')) return 'messagingv2';
  return drivers.includes('messaging') ? 'messaging' : 'off';
}
