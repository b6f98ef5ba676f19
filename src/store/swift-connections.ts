/** Connections to Swift and its Keystone, and the token of [service_user]: of one store, or of those of all callers. */
import { createHttp, type Http, type HttpOptions } from '../openstack/http.ts';
import { keystoneV3 } from '../openstack/log-in.ts';
import { createTokenSource, type TokenSource } from '../openstack/token-source.ts';
import type { ServiceUser, SwiftStoreOptions, SwiftTuning } from './swift-options.ts';

export type SwiftConnections = {
  readonly http: Http;
  /** The service token; null if none is sent. */
  readonly service: TokenSource | null;
  close(): Promise<void>;
};

/** Opens no connection yet. */
export function openSwiftConnections(
  options: SwiftStoreOptions,
  serviceUser: ServiceUser,
  tuning: SwiftTuning,
  now: () => number,
): SwiftConnections {
  const http = createHttp(httpOptions(options, tuning));
  const user = options.serviceAuth ? serviceUser : undefined;
  if (user === undefined) return { http, service: null, close: () => http.close() };
  const serviceHttp = createHttp(serviceHttpOptions(user, tuning));
  return {
    http,
    service: createTokenSource(keystoneV3(serviceHttp, user.authUrl, user.identity), now),
    async close() {
      await Promise.all([http.close(), serviceHttp.close()]);
    },
  };
}

function httpOptions(options: SwiftStoreOptions, tuning: SwiftTuning): HttpOptions {
  const single = options.auth === 'single_user';
  return {
    service: {
      name: 'Swift',
      urlOption: single ? 'backup_swift_auth_url or the catalog' : 'backup_swift_url or the catalog',
      caOption: 'backup_swift_ca_cert_file',
      insecureOption: 'backup_swift_auth_insecure',
    },
    connections: null,
    connectTimeoutMs: tuning.timeoutMs,
    idleTimeoutMs: tuning.timeoutMs,
    caFile: options.caCertFile,
    insecure: options.insecure,
  };
}

function serviceHttpOptions(user: NonNullable<ServiceUser>, tuning: SwiftTuning): HttpOptions {
  return {
    service: {
      name: 'Keystone',
      urlOption: '[service_user] auth_url',
      caOption: '[service_user] cafile',
      insecureOption: '[service_user] insecure',
    },
    connections: null,
    connectTimeoutMs: user.timeoutMs ?? tuning.timeoutMs,
    idleTimeoutMs: user.timeoutMs ?? tuning.timeoutMs,
    caFile: user.caFile,
    insecure: user.insecure,
    clientFiles: { cert: user.certFile, key: user.keyFile },
  };
}
