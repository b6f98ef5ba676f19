/**
 * Cinder's exceptions, as far as cinder-backup raises them: text and code of each class (cinder/exception.py). A peer
 * rebuilds the class from module, name, `args` and `kwargs`, so both must be those that Python would send.
 */
import { BackupError, type ErrorCode } from '../model/errors.ts';

type Kwargs = Readonly<Record<string, string | number | boolean | null>>;

type ExceptionClass = {
  /** With `%(name)s` for each of kwargs. */
  readonly message: string;
  /** HTTP status that the API answers with. */
  readonly code: number;
  readonly errorCode: ErrorCode;
};

export const cinderExceptions = {
  CinderException: { message: 'An unknown exception occurred.', code: 500, errorCode: 'bug' },
  NotFound: { message: 'Resource could not be found.', code: 404, errorCode: 'not-found' },
  Invalid: { message: 'Unacceptable parameters.', code: 400, errorCode: 'message-invalid' },
  NotAuthorized: { message: 'Not authorized.', code: 403, errorCode: 'access-denied' },
  InvalidBackup: { message: 'Invalid backup: %(reason)s', code: 400, errorCode: 'state-invalid' },
  InvalidVolume: { message: 'Invalid volume: %(reason)s', code: 400, errorCode: 'state-invalid' },
  InvalidSnapshot: { message: 'Invalid snapshot: %(reason)s', code: 400, errorCode: 'state-invalid' },
  InvalidInput: { message: 'Invalid input received: %(reason)s', code: 400, errorCode: 'message-invalid' },
  BackupNotFound: { message: 'Backup %(backup_id)s could not be found.', code: 404, errorCode: 'not-found' },
  VolumeNotFound: { message: 'Volume %(volume_id)s could not be found.', code: 404, errorCode: 'not-found' },
  SnapshotNotFound: {
    message: 'Snapshot %(snapshot_id)s could not be found.',
    code: 404,
    errorCode: 'not-found',
  },
  ServiceNotFound: {
    message: 'Service %(service_id)s could not be found.',
    code: 404,
    errorCode: 'not-found',
  },
  BackupOperationError: {
    message: 'An error has occurred during backup operation',
    code: 400,
    errorCode: 'state-invalid',
  },
  BackupDriverException: {
    message: 'Backup driver reported an error: %(reason)s',
    code: 500,
    errorCode: 'store-denied',
  },
  BackupMetadataUnsupportedVersion: {
    message: 'Unsupported backup metadata version requested',
    code: 500,
    errorCode: 'message-invalid',
  },
  BackupRestoreCancel: {
    message: 'Canceled backup %(back_id)s restore on volume %(vol_id)s',
    code: 500,
    errorCode: 'cancelled',
  },
  NotSupportedOperation: {
    message: 'Operation not supported: %(operation)s.',
    code: 405,
    errorCode: 'state-invalid',
  },
  InvalidConfigurationValue: {
    message: 'Value "%(value)s" is not valid for configuration option "%(option)s"',
    code: 400,
    errorCode: 'config-invalid',
  },
  KeyManagerError: { message: 'key manager error: %(reason)s', code: 500, errorCode: 'state-invalid' },
  ServiceTooOld: {
    message: 'Service is too old to fulfil this request.',
    code: 400,
    errorCode: 'version-unsupported',
  },
} as const satisfies Record<string, ExceptionClass>;

export type CinderExceptionName = keyof typeof cinderExceptions;

/** What an error of ours says of the exception that a Python peer shall see. */
export type CinderFailure = { readonly name: CinderExceptionName; readonly kwargs: Kwargs };

/** An error that goes over the bus as `cinder.exception.<name>`, with the text that Python gives it. */
export function cinderError(name: CinderExceptionName, kwargs: Kwargs = {}, cause?: unknown): BackupError {
  const { errorCode } = cinderExceptions[name];
  const failure: CinderFailure = { name, kwargs };
  return new BackupError(errorCode, cinderMessage(name, kwargs), { cause, details: { cinder: failure } });
}

/** Python's `message % kwargs`. */
export function cinderMessage(name: CinderExceptionName, kwargs: Kwargs): string {
  return cinderExceptions[name].message.replace(/%\((\w+)\)s/gu, (_match, key: string) =>
    String(kwargs[key] ?? 'None'),
  );
}

export function isCinderExceptionName(name: unknown): name is CinderExceptionName {
  return typeof name === 'string' && Object.hasOwn(cinderExceptions, name);
}
