/** The store that cinder.conf names, opened for all requests, or for each of them. */
import type { ServiceConfig } from '../config/service-config.ts';
import type { StoreConfig } from '../config/store-config.ts';
import type { Logger } from '../log.ts';
import type { SwiftCaller } from '../store/swift-options.ts';
import { createCallerStore } from './caller-store.ts';
import type { OpenedStore } from './open-posix-store.ts';
import { openStore } from './open-store.ts';

export type CloudStore = OpenedStore & {
  /** Opens the store with what one caller brings; null: nobody, which is refused. Undefined where one store serves all. */
  readonly openFor: ((caller: SwiftCaller | null) => OpenedStore) | undefined;
};

/**
 * Connects nowhere. Where each caller has a store, the store itself is nobody's: its calls are refused with `store-denied`
 * (per_user) or `config-invalid` (single_user), and there is nothing that could be tested before a user comes.
 */
export function openCloudStore(
  config: Pick<ServiceConfig, 'store' | 'serviceUser'>,
  log: Logger,
): CloudStore {
  const region = process.env['AWS_DEFAULT_REGION'];
  const openFor = (caller: SwiftCaller | null) =>
    openStore(config.store, { serviceUser: config.serviceUser, caller, region, log });
  const { store } = config;
  if (store.kind !== 'swift' || !needsCaller(store)) {
    const opened = openFor(null);
    // The NFS driver's layout is that of the posix driver; its name is its own.
    return { ...opened, store: { ...opened.store, service: store.driverClass }, openFor: undefined };
  }
  const nobody = createCallerStore({ kind: 'swift', service: store.driverClass }, () => openFor(null).store);
  return {
    store: nobody.store,
    naming: 'swift',
    container: store.container,
    check: async () => await Promise.resolve({ ready: true, findings: ['tested when a user comes'] }),
    adopt: async () => await Promise.resolve(),
    openFor,
  };
}

/** per_user works with the caller's token; single_user without an auth URL looks Keystone up in the caller's catalog, as Cinder does. */
function needsCaller(store: Extract<StoreConfig, { kind: 'swift' }>): boolean {
  return store.auth === 'per_user' || store.authUrl === undefined;
}
