/**
 * What each request is done in: the cloud with its context, and the store. One store serves all requests, unless Swift needs
 * what each caller brings (open-cloud-store.ts): then each request has its own.
 */
import { requestContextOf, type BusContext } from '../bus/bus-context.ts';
import type { MessageBus } from '../bus/message-bus.ts';
import type { KeyCopies } from '../manager/cloud.ts';
import type { ManagerEnvironment, RequestScope } from '../manager/environment.ts';
import { createOpenstackCloud } from '../manager/openstack-cloud.ts';
import type { SwiftCaller } from '../store/swift-options.ts';
import { createCallerStore, type CallerStore } from './caller-store.ts';
import type { OpenedStore } from './open-posix-store.ts';

export type ScopeDeps = {
  /** All but the cloud, and the store where each caller has one. */
  readonly base: Omit<ManagerEnvironment, 'cloud'>;
  readonly bus: MessageBus;
  readonly isWorking: () => boolean;
  readonly hasWorked: () => boolean;
  /** Copies of keys with the rights of the caller. */
  readonly keysOf: (context: BusContext) => KeyCopies;
  /** Opens the store of one caller; undefined where all share one. */
  readonly openCallerStore: ((caller: SwiftCaller | null) => OpenedStore) | undefined;
};

export function createScopes(deps: ScopeDeps): (context: BusContext) => RequestScope {
  const { base, bus, isWorking, hasWorked, keysOf, openCallerStore } = deps;
  const { database, clock, resources } = base;
  const { kind, service } = resources.store;
  return (context) => {
    const own: CallerStore | undefined =
      openCallerStore === undefined
        ? undefined
        : createCallerStore({ kind, service }, () => openCallerStore(callerOf(context)).store);
    const cloud = createOpenstackCloud({
      bus,
      context,
      database,
      clock,
      isWorking,
      hasWorked,
      keys: keysOf(context),
      end: async () => await own?.close(),
    });
    const environment: ManagerEnvironment = {
      ...base,
      cloud,
      resources: own === undefined ? resources : { ...resources, store: own.store },
    };
    return { environment, context: requestContextOf(context) };
  };
}

function callerOf({ authToken, projectId, items }: BusContext): SwiftCaller | null {
  if (authToken === null || projectId === null) return null;
  return { authToken, projectId, serviceCatalog: items['service_catalog'] };
}
