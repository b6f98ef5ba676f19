/** The SDK's client, set up for servers that only resemble AWS, and one way to send its commands. */
import { createHash } from 'node:crypto';
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';
import { BackupError } from '../model/errors.ts';
import { createHttp, type HttpOptions } from '../openstack/http.ts';
import { s3Error, type S3Target } from './s3-error.ts';
import { createSdkHandler, type SdkHandler } from './s3-handler.ts';
import type { S3StoreOptions, S3Tuning } from './s3-options.ts';

export type S3Connection = {
  readonly client: S3Client;
  /**
   * Runs one exchange with `client` and translates what it throws. A server that names another region for the bucket is
   * asked again, signed for that one, which then holds for all that follows.
   */
  run<T>(target: S3Target, signal: AbortSignal, exchange: (client: S3Client) => Promise<T>): Promise<T>;
  /** The region that requests are signed for now. */
  region(): string;
  /** The `Date` of the last answer. */
  date(): string | null;
  close(): Promise<void>;
};

/** Opens no connection yet. Throws `config-invalid` if the endpoint is no URL or a part is too small. */
export function createS3Connection(options: S3StoreOptions, tuning: S3Tuning): S3Connection {
  requireSense(options, tuning);
  const http = createHttp(httpOptions(options));
  const state: { region: string; hinted: string; date: string | null } = {
    region: tuning.region,
    hinted: tuning.region,
    date: null,
  };
  const handler = createSdkHandler(http, {
    region: (region) => {
      state.hinted = region;
    },
    date: (date) => {
      state.date = date;
    },
  });
  const client = new S3Client({
    endpoint: options.endpointUrl,
    region: async () => await Promise.resolve(state.region),
    credentials: { accessKeyId: options.accessKey, secretAccessKey: options.secretKey },
    forcePathStyle: tuning.addressing === 'path',
    requestHandler: asHandler(handler),
    // The retry wrapper repeats, not the SDK.
    maxAttempts: 1,
    retryMode: 'standard',
    // Servers that resemble S3 refuse the newer checksums; bodies are checked by MD5.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    expectContinueHeader: false,
    useDualstackEndpoint: false,
    useFipsEndpoint: false,
    useArnRegion: false,
    disableS3ExpressSessionAuth: true,
    disableMultiregionAccessPoints: true,
    userAgentAppId: undefined,
    defaultsMode: 'standard',
  });
  client.middlewareStack.add(
    (next) => async (args) => {
      plainDigestOfDeletes(args.request);
      return await next(args);
    },
    { step: 'build', priority: 'low', name: 'md5OfDeletes' },
  );

  return {
    client,
    region: () => state.region,
    date: () => state.date,
    async run(target, signal, exchange) {
      // Another exchange may learn the region while this one is on its way.
      const signedFor = state.region;
      try {
        return await exchange(client);
      } catch (error) {
        if (state.hinted === signedFor || signal.aborted) throw s3Error(target, error, signal);
        state.region = state.hinted;
      }
      try {
        return await exchange(client);
      } catch (error) {
        throw s3Error(target, error, signal);
      }
    },
    async close() {
      client.destroy();
      await http.close();
    },
  };
}

function asHandler(handler: SdkHandler): NonNullable<S3ClientConfig['requestHandler']> {
  return handler;
}

/**
 * DeleteObjects must carry a digest; the SDK's CRC32 is unknown to radosgw and s3api, Content-MD5 is known everywhere
 * (aws-sdk-js-v3 issue 6819).
 */
function plainDigestOfDeletes(request: unknown): void {
  if (!isRequestWithText(request) || request.query['delete'] === undefined) return;
  for (const name of Object.keys(request.headers)) {
    if (name.startsWith('x-amz-checksum-') || name === 'x-amz-sdk-checksum-algorithm')
      delete request.headers[name];
  }
  request.headers['content-md5'] = createHash('md5').update(request.body).digest('base64');
}

type RequestWithText = {
  readonly query: Readonly<Record<string, unknown>>;
  readonly headers: Record<string, string>;
  readonly body: string;
};

function isRequestWithText(request: unknown): request is RequestWithText {
  return (
    typeof request === 'object' &&
    request !== null &&
    'query' in request &&
    'headers' in request &&
    'body' in request &&
    typeof request.body === 'string'
  );
}

function requireSense(options: S3StoreOptions, tuning: S3Tuning): void {
  if (!/^https?:$/.test(URL.parse(options.endpointUrl)?.protocol ?? '')) {
    throw new BackupError(
      'config-invalid',
      `backup_s3_endpoint_url is ${JSON.stringify(options.endpointUrl)}: it must start with http:// or https://`,
    );
  }
  if (tuning.partBytes < 5_242_880) {
    throw new BackupError(
      'config-invalid',
      `a part of ${tuning.partBytes} bytes is less than the 5 MiB of S3`,
    );
  }
}

function httpOptions(options: S3StoreOptions): HttpOptions {
  return {
    service: {
      name: 'S3',
      urlOption: 'backup_s3_endpoint_url',
      caOption: 'backup_s3_ca_cert_file',
      insecureOption: 'backup_s3_verify_ssl = false',
    },
    // The limit wrapper bounds requests. A bound here would let bodies that rest keep puts from ever starting.
    connections: null,
    connectTimeoutMs: options.timeoutMs,
    idleTimeoutMs: options.timeoutMs,
    caFile: options.verifyTls ? options.caCertFile : undefined,
    insecure: !options.verifyTls,
    proxies: { http: proxyUrl(options.httpProxy), https: proxyUrl(options.httpsProxy) },
  };
}

/** Cinder takes `host:port` as well as a URL. */
function proxyUrl(proxy: string | undefined): string | undefined {
  return proxy === undefined || /^https?:\/\//.test(proxy) ? proxy : `http://${proxy}`;
}
