/**
 * The request context that travels with every message (cinder/context.py, RequestContext.to_dict). Its items are
 * kept as they came, so that a request made on behalf of another carries the same ones.
 */
import type { RequestContext } from '../model/request-context.ts';
import { isJsonObject, type Json, type JsonObject } from './envelope.ts';

export type BusContext = {
  readonly requestId: string | null;
  readonly globalRequestId: string | null;
  readonly projectId: string | null;
  readonly userId: string | null;
  readonly isAdmin: boolean;
  /** The caller's token at Keystone: secret. */
  readonly authToken: string | null;
  readonly roles: readonly string[];
  readonly serviceCatalog: readonly CatalogEntry[];
  /** All items as they came. Holds the token: never logged. */
  readonly items: JsonObject;
};

export type CatalogEntry = {
  readonly type: string;
  readonly name: string;
  /** Each with `region`, `publicURL`, `internalURL`, `adminURL`. */
  readonly endpoints: readonly Readonly<Record<string, string>>[];
};

/** Reads the context of a message. What is missing is null; nothing in a context makes a message invalid. */
export function readContext(items: JsonObject): BusContext {
  return {
    requestId: textOf(items['request_id']),
    globalRequestId: textOf(items['global_request_id']),
    projectId: textOf(items['project_id']) ?? textOf(items['project']) ?? textOf(items['tenant']),
    userId: textOf(items['user_id']) ?? textOf(items['user']),
    isAdmin: items['is_admin'] === true,
    authToken: textOf(items['auth_token']),
    roles: listOf(items['roles']).flatMap((role) => (typeof role === 'string' ? role : [])),
    serviceCatalog: listOf(items['service_catalog']).flatMap(readCatalogEntry),
    items,
  };
}

/** What goes into every log line of an operation. */
export function logFieldsOf({
  requestId,
  globalRequestId,
  projectId,
  userId,
}: BusContext): Record<string, string> {
  const fields = {
    request_id: requestId,
    global_request_id: globalRequestId,
    project_id: projectId,
    user_id: userId,
  };
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => (value === null ? [] : [[name, value]])),
  );
}

/** Who asks, for rows and messages; empty where the context does not say. */
export function requestContextOf({ projectId, userId, requestId }: BusContext): RequestContext {
  return { projectId: projectId ?? '', userId: userId ?? '', requestId: requestId ?? '' };
}

/**
 * A context of our own, with the rights of an administrator (cinder/context.py, get_admin_context): for what no
 * user asked for, such as the reports to the scheduler.
 */
export function adminContext(requestId: string, now: Date): BusContext {
  return readContext({
    user: null,
    project_id: null,
    system_scope: null,
    project: null,
    domain: null,
    user_domain: null,
    project_domain: null,
    is_admin: true,
    read_only: false,
    show_deleted: false,
    auth_token: null,
    request_id: requestId,
    global_request_id: null,
    resource_uuid: null,
    roles: ['admin'],
    user_identity: '- - - - -',
    is_admin_project: true,
    user_id: null,
    project_name: null,
    domain_id: null,
    read_deleted: 'no',
    remote_address: null,
    timestamp: now.toISOString().replace('Z', '000'),
    quota_class: null,
    service_catalog: [],
    message_resource_id: null,
    message_resource_type: null,
    message_action: null,
  });
}

/** The items without what notifications must not show (oslo_messaging/notify/notifier.py, _sanitize_context). */
export function withoutSecrets(items: JsonObject): JsonObject {
  return { ...items, auth_token: null, service_catalog: [] };
}

function readCatalogEntry(entry: Json): CatalogEntry[] {
  if (!isJsonObject(entry)) return [];
  const endpoints = listOf(entry['endpoints']).filter(isJsonObject);
  return [
    {
      type: textOf(entry['type']) ?? '',
      name: textOf(entry['name']) ?? '',
      endpoints: endpoints.map((endpoint) =>
        Object.fromEntries(
          Object.entries(endpoint).flatMap(([key, value]) =>
            typeof value === 'string' ? [[key, value]] : [],
          ),
        ),
      ),
    },
  ];
}

function textOf(value: Json | undefined): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

function listOf(value: Json | undefined): readonly Json[] {
  return Array.isArray(value) ? value : [];
}
