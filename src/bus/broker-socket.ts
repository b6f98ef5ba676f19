/** Opens one connection to one host of the broker, with the login, TLS and heartbeat of the configuration. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { connect, credentials, type ChannelModel } from 'amqplib';
import type { BrokerConfig, BrokerTls } from '../config/messaging-config.ts';
import type { BrokerHost } from '../config/transport-url.ts';
import { BackupError, messageOf } from '../model/errors.ts';

const connectTimeoutMs = 10_000;

/**
 * A connection to `host`. `name` is what the broker's administrator sees. Files of certificates are read each time, so a
 * renewed one counts from the next connection on. Throws `bus-unavailable` naming the host, never the password.
 */
export async function openBroker(
  broker: BrokerConfig,
  host: BrokerHost,
  name: string,
): Promise<ChannelModel> {
  const address = `${host.hostname}:${host.port}`;
  try {
    const tls = broker.tls === undefined ? {} : await tlsOptions(broker.tls);
    return await connect(
      {
        protocol: broker.tls === undefined ? 'amqp' : 'amqps',
        hostname: host.hostname,
        port: host.port,
        vhost: encodeURIComponent(broker.virtualHost),
        frameMax: 131_072,
        heartbeat: broker.heartbeatSeconds,
      },
      {
        ...tls,
        credentials: credentialsOf(broker, host),
        timeout: connectTimeoutMs,
        noDelay: true,
        keepAlive: true,
        clientProperties: { connection_name: `${name}:${process.pid}:${randomUUID()}` },
      },
    );
  } catch (error) {
    throw new BackupError(
      'bus-unavailable',
      `the message broker at ${address} cannot be used by user "${host.username}" in virtual host "${broker.virtualHost}": ${messageOf(error)}`,
      { cause: error },
    );
  }
}

function credentialsOf({ loginMethod }: BrokerConfig, { username, password }: BrokerHost) {
  if (loginMethod === 'EXTERNAL') return credentials.external();
  return loginMethod === 'PLAIN'
    ? credentials.plain(username, password)
    : credentials.amqplain(username, password);
}

/** As oslo.messaging: the broker's certificate is checked if an authority is given, its name only if that is asked for. */
async function tlsOptions({ caFile, certFile, keyFile, verifyHostname }: BrokerTls) {
  const [ca, cert, key] = await Promise.all([
    readIfGiven(caFile),
    readIfGiven(certFile),
    readIfGiven(keyFile),
  ]);
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    rejectUnauthorized: ca !== undefined,
    ...(verifyHostname ? {} : { checkServerIdentity: () => undefined }),
  };
}

async function readIfGiven(path: string | undefined): Promise<Buffer | undefined> {
  return path === undefined ? undefined : await readFile(path);
}
