/**
 * Requests and replies of the RPC, inside the envelope (oslo_messaging/_drivers/amqpdriver.py, rpc/client.py). The
 * context's items stand beside the other keys, each as `_context_<name>`. A request with `_msg_id` and `_reply_q` is a
 * call and wants a reply; without them it is a cast.
 */
import { BackupError } from '../model/errors.ts';
import { isJsonObject, type Json, type JsonObject } from './envelope.ts';

export type RpcRequest = {
  readonly method: string;
  readonly args: JsonObject;
  readonly version: string;
  readonly namespace: string | undefined;
  /** As sent, names without `_context_`. */
  readonly context: JsonObject;
  readonly uniqueId: string | undefined;
  readonly call: PendingCall | undefined;
};

export type PendingCall = {
  readonly messageId: string;
  readonly replyQueue: string;
  /** The caller wants a sign of life more often than this many seconds; null: it does not wait for one. */
  readonly monitorSeconds: number | null;
};

export type RpcReply = {
  readonly messageId: string;
  readonly uniqueId: string | undefined;
  readonly result: Json;
  /** A JSON text that describes an exception. */
  readonly failure: string | null;
  /** False for a sign of life: the reply is still to come. */
  readonly ending: boolean;
};

const contextPrefix = '_context_';

/** Reads a request. Throws `message-invalid`. */
export function parseRequest(message: JsonObject): RpcRequest {
  const { method, args = {}, version = '1.0', namespace } = message;
  if (typeof method !== 'string') throw invalid('the request names no method');
  if (!isJsonObject(args)) throw invalid(`the arguments of ${method} are not an object`);
  if (typeof version !== 'string') throw invalid(`the version of ${method} is not a text`);
  const context = Object.entries(message)
    .filter(([key]) => key.startsWith(contextPrefix))
    .map(([key, value]) => [key.slice(contextPrefix.length), value] as const);
  return {
    method,
    args,
    version,
    namespace: typeof namespace === 'string' ? namespace : undefined,
    context: Object.fromEntries(context),
    uniqueId: textOf(message['_unique_id']),
    call: parseCall(message),
  };
}

function parseCall(message: JsonObject): PendingCall | undefined {
  const messageId = textOf(message['_msg_id']);
  const replyQueue = textOf(message['_reply_q']);
  if (messageId === undefined || replyQueue === undefined) return undefined;
  const timeout = Number(message['_timeout'] ?? 0);
  return { messageId, replyQueue, monitorSeconds: timeout > 0 ? Math.trunc(timeout) : null };
}

/** The message of a request, its keys in the order that Python gives them. */
export function renderRequest(request: RpcRequest): JsonObject {
  const { method, args, namespace, version, call, uniqueId, context } = request;
  return {
    method,
    args,
    ...(namespace === undefined ? {} : { namespace }),
    version,
    ...(call === undefined
      ? {}
      : { _msg_id: call.messageId, _reply_q: call.replyQueue, _timeout: call.monitorSeconds }),
    ...(uniqueId === undefined ? {} : { _unique_id: uniqueId }),
    ...renderContext(context),
  };
}

/** The keys of a context in a message. */
export function renderContext(context: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(context).map(([key, value]) => [`${contextPrefix}${key}`, value]));
}

/** Reads a reply. Throws `message-invalid`. */
export function parseReply(message: JsonObject): RpcReply {
  const messageId = textOf(message['_msg_id']);
  if (messageId === undefined) throw invalid('the reply does not say which call it answers');
  const { result = null, failure = null, ending = false } = message;
  if (failure !== null && typeof failure !== 'string')
    throw invalid('the failure of the reply is not a text');
  return { messageId, uniqueId: textOf(message['_unique_id']), result, failure, ending: ending === true };
}

/** The message of a reply, its keys in the order that Python gives them. */
export function renderReply({ result, failure, ending, messageId, uniqueId }: RpcReply): JsonObject {
  return {
    result,
    failure,
    ending,
    _msg_id: messageId,
    ...(uniqueId === undefined ? {} : { _unique_id: uniqueId }),
  };
}

/**
 * True if a server of version `implemented` serves a request of version `requested`: same major, no higher minor, and no
 * higher revision of the same minor (oslo_messaging/_utils.py, version_is_compatible).
 */
export function isVersionCompatible(implemented: string, requested: string): boolean {
  const [major = 0, minor = 0, revision = 0] = numbersOf(implemented);
  const [wantedMajor = 0, wantedMinor = 0, wantedRevision = 0] = numbersOf(requested);
  if (major !== wantedMajor || wantedMinor > minor) return false;
  return wantedMinor < minor || wantedRevision <= revision;
}

function numbersOf(version: string): readonly number[] {
  return version.split('.').map((part) => (/^[0-9]+$/u.test(part) ? Number(part) : Number.POSITIVE_INFINITY));
}

function textOf(value: Json | undefined): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function invalid(reason: string): BackupError {
  return new BackupError('message-invalid', reason);
}
