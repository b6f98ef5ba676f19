/** The store that cinder.conf names, opened for all requests, or for each of them. */
import type { ServiceConfig } from '../config/service-config.ts';
import type { Logger } from '../log.ts';
import type { SwiftCaller } from '../store/swift-options.ts';
import { createCallerStore } from './caller-store.ts';
import type { OpenedStore } from './open-posix-store.ts';
import { openStore } from './open-store.ts';

export type CloudStore = OpenedStore & {
  /** Opens the store with the rights of one caller; null: of nobody, which per_user refuses. */
  openFor(caller: SwiftCaller | null): OpenedStore;
};

/**
 * Connects nowhere. In per_user mode the store itself is nobody's: its calls are refused with `store-denied`, and there
 * is nothing that could be tested before a user comes.
 */
export function openCloudStore(config: ServiceConfig, log: Logger): CloudStore {
  const region = process.env['AWS_DEFAULT_REGION'];
  const openFor = (caller: SwiftCaller | null) =>
    openStore(config.store, { serviceUser: config.serviceUser, caller, region, log });
  const { store } = config;
  if (store.kind !== 'swift' || store.auth !== 'per_user') {
    const opened = openFor(null);
    // The NFS driver's layout is that of the posix driver; its name is its own.
    return { ...opened, store: { ...opened.store, service: store.driverClass }, openFor };
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
