/** The store that cinder.conf names, opened for all requests, or for each of them. */
import type { ServiceConfig } from '../config/service-config.ts';
import type { SwiftConfig } from '../config/store-config.ts';
import type { Logger } from '../log.ts';
import type { Http } from '../openstack/http.ts';
import { checkStore } from '../store/check-store.ts';
import type { SwiftCaller } from '../store/swift-options.ts';
import { createSwiftReach } from '../store/swift-reach.ts';
import { createCallerStore } from './caller-store.ts';
import type { OpenedStore } from './open-posix-store.ts';
import { openSharedSwift, openStore } from './open-store.ts';

export type CloudStore = OpenedStore & {
  /** Opens the store with what one caller brings; null: nobody, which is refused. Undefined where one store serves all. */
  readonly openFor: ((caller: SwiftCaller | null) => OpenedStore) | undefined;
};

/**
 * Connects nowhere. Where each caller has a store, the store itself is nobody's: its calls are refused with `store-denied`
 * (per_user) or `config-invalid` (single_user), and all that can be tested before a user comes is the way to `backup_swift_url`.
 */
export function openCloudStore(
  config: Pick<ServiceConfig, 'store' | 'serviceUser'>,
  log: Logger,
): CloudStore {
  const { store, serviceUser } = config;
  if (store.kind !== 'swift' || !needsCaller(store)) {
    const region = process.env['AWS_DEFAULT_REGION'];
    const opened = openStore(store, { serviceUser, caller: null, region, log });
    // The NFS driver's layout is that of the posix driver; its name is its own.
    return { ...opened, store: { ...opened.store, service: store.driverClass }, openFor: undefined };
  }
  const shared = openSharedSwift(store, serviceUser);
  const openFor = (caller: SwiftCaller | null) =>
    openStore(store, { serviceUser, caller, region: undefined, log, shared });
  const nobody = createCallerStore({ kind: 'swift', service: store.driverClass }, () => openFor(null).store);
  return {
    store: { ...nobody.store, close: () => shared.connections.close() },
    naming: 'swift',
    container: store.container,
    check: checkBeforeCallers(store, shared.connections.http),
    adopt: async () => await Promise.resolve(),
    openFor,
  };
}

function checkBeforeCallers({ url, container }: SwiftConfig, http: Http): OpenedStore['check'] {
  if (url === undefined) {
    return async () => await Promise.resolve({ ready: true, findings: ['tested when a user comes'] });
  }
  const reach = createSwiftReach(http, url, () => Date.now());
  return async (signal) => await checkStore(reach, container, signal);
}

/** per_user works with the caller's token; single_user without an auth URL looks Keystone up in the caller's catalog, as Cinder does. */
function needsCaller(store: SwiftConfig): boolean {
  return store.auth === 'per_user' || store.authUrl === undefined;
}
