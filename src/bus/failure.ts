/**
 * Failures on the wire: a JSON text of class, module, message, traceback, args and kwargs
 * (oslo_messaging/_drivers/common.py, serialize_remote_exception). Outward, an error becomes the exception that
 * cinder-backup would have raised; inward, an exception becomes a BackupError.
 */
import { z } from 'zod';
import { BackupError, isBackupError, messageOf, type ErrorCode } from '../model/errors.ts';
import {
  cinderExceptions,
  cinderMessage,
  isCinderExceptionName,
  type CinderExceptionName,
  type CinderFailure,
} from './cinder-exceptions.ts';
import type { JsonObject } from './envelope.ts';

const dispatcherModule = 'oslo_messaging.rpc.dispatcher';

/** The failure text of a request for a method that we do not have. */
export function noSuchMethod(method: string): string {
  return render('NoSuchMethod', dispatcherModule, `Endpoint does not support RPC method ${method}`, {});
}

/** The failure text of a request for a version or namespace that we do not serve. */
export function unsupportedVersion(version: string, method: string): string {
  const message = `Endpoint does not support RPC version ${version}. Attempted method: ${method}`;
  return render('UnsupportedVersion', dispatcherModule, message, {});
}

/** The failure text of any thrown value. */
export function renderFailure(error: unknown): string {
  if (isBackupError(error, 'version-unsupported') && 'objver' in error.details) return tooNew(error);
  const { name, kwargs, message } = exceptionOf(error);
  const { code } = cinderExceptions[name];
  return render(name, 'cinder.exception', message, { ...kwargs, code });
}

/** An object of a later major version: what oslo.versionedobjects raises for it (base.py, obj_class_from_name). */
function tooNew({ message, details: { objname, objver, supported } }: BackupError): string {
  const kwargs = { objname: String(objname), objver: String(objver), supported: String(supported) };
  return render('IncompatibleObjectVersion', 'oslo_versionedobjects.exception', message, kwargs);
}

function exceptionOf(error: unknown): CinderFailure & { readonly message: string } {
  if (!isBackupError(error)) {
    const message = `An unexpected error occurred: ${messageOf(error)}`;
    return { name: 'CinderException', kwargs: {}, message };
  }
  const stated = error.details['cinder'];
  if (isCinderFailure(stated)) return { ...stated, message: cinderMessage(stated.name, stated.kwargs) };
  const name = defaultExceptions[error.code] ?? 'CinderException';
  const kwargs = cinderExceptions[name].message.includes('%(reason)s') ? { reason: error.message } : {};
  const formatted = Object.keys(kwargs).length > 0 ? cinderMessage(name, kwargs) : error.message;
  return { name, kwargs, message: formatted };
}

function isCinderFailure(value: unknown): value is CinderFailure {
  return (
    typeof value === 'object' &&
    value !== null &&
    'name' in value &&
    'kwargs' in value &&
    isCinderExceptionName(value.name)
  );
}

/** The exception of an error that does not state its own. */
const defaultExceptions: Readonly<Partial<Record<ErrorCode, CinderExceptionName>>> = {
  'not-found': 'NotFound',
  'message-invalid': 'InvalidInput',
  'access-denied': 'NotAuthorized',
  'state-invalid': 'InvalidBackup',
  'stale-update': 'InvalidBackup',
  'already-exists': 'InvalidBackup',
  cancelled: 'InvalidBackup',
  'chain-broken': 'InvalidBackup',
  'delta-unavailable': 'InvalidBackup',
  'limit-exceeded': 'InvalidBackup',
  'store-unavailable': 'BackupDriverException',
  'store-denied': 'BackupDriverException',
  'store-full': 'BackupDriverException',
  'object-missing': 'BackupDriverException',
  corrupt: 'BackupDriverException',
};

/** Python's own tracebacks would say where it happened; ours says where to look. */
function render(name: string, module: string, message: string, kwargs: JsonObject): string {
  return JSON.stringify({
    class: name,
    module,
    message,
    tb: [`${module}.${name}: ${message} (raised by cinder-delta: its log has the request id)\n`],
    args: [message],
    kwargs,
  });
}

const remoteFailure = z.looseObject({ class: z.string(), module: z.string(), message: z.string() });

/** The error that the failure text of a peer stands for; `method` is what it was asked for. */
export function parseFailure(text: string, method: string): BackupError {
  let described: unknown;
  try {
    described = JSON.parse(text);
  } catch (error) {
    return new BackupError('peer-failed', `${method} failed at the other end, which does not say why`, {
      cause: error,
    });
  }
  const parsed = remoteFailure.safeParse(described);
  if (!parsed.success)
    return new BackupError('peer-failed', `${method} failed at the other end, which does not say why`);
  const { class: name, module, message } = parsed.data;
  return new BackupError(codeOfClass(name), `${method} failed at the other end: ${message}`, {
    details: { remoteClass: `${module}.${name}`, method },
  });
}

function codeOfClass(name: string): ErrorCode {
  if (isCinderExceptionName(name) && name !== 'CinderException') return cinderExceptions[name].errorCode;
  if (name.endsWith('NotFound')) return 'not-found';
  if (name === 'UnsupportedVersion' || name === 'NoSuchMethod') return 'version-unsupported';
  return name.startsWith('Invalid') ? 'state-invalid' : 'peer-failed';
}
