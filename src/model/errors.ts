/**
 * The one error of this project. Foreign errors are translated once, at the border of the room that met
 * them, keeping `cause`. Absent and unreachable are different codes.
 */

/** What went wrong, whether trying again can help, and the HTTP status it has on REST and the agent protocol. */
export const errorCodes = {
  'config-invalid': { retryable: false, httpStatus: 500 },
  'message-invalid': { retryable: false, httpStatus: 400 },
  'version-unsupported': { retryable: false, httpStatus: 400 },
  'not-found': { retryable: false, httpStatus: 404 },
  'already-exists': { retryable: false, httpStatus: 409 },
  'state-invalid': { retryable: false, httpStatus: 409 },
  'stale-update': { retryable: false, httpStatus: 409 },
  'access-denied': { retryable: false, httpStatus: 401 },
  cancelled: { retryable: false, httpStatus: 409 },
  'chain-broken': { retryable: false, httpStatus: 409 },
  'delta-unavailable': { retryable: false, httpStatus: 409 },
  'limit-exceeded': { retryable: false, httpStatus: 413 },
  busy: { retryable: true, httpStatus: 503 },
  'agent-unavailable': { retryable: true, httpStatus: 503 },
  'agent-failed': { retryable: false, httpStatus: 500 },
  'store-unavailable': { retryable: true, httpStatus: 503 },
  'store-denied': { retryable: false, httpStatus: 502 },
  'store-full': { retryable: false, httpStatus: 507 },
  'object-missing': { retryable: false, httpStatus: 502 },
  'database-unavailable': { retryable: true, httpStatus: 503 },
  'bus-unavailable': { retryable: true, httpStatus: 503 },
  'peer-failed': { retryable: false, httpStatus: 502 },
  corrupt: { retryable: false, httpStatus: 502 },
  bug: { retryable: false, httpStatus: 500 },
} as const satisfies Record<string, { retryable: boolean; httpStatus: number }>;

export type ErrorCode = keyof typeof errorCodes;

export type ErrorDetails = Readonly<Record<string, unknown>>;

/** An error with a code, a sentence that names the thing, the value and the remedy, and details for the log. */
export class BackupError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: ErrorDetails;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: ErrorDetails; retryable?: boolean } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'BackupError';
    this.code = code;
    this.retryable = options.retryable ?? errorCodes[code].retryable;
    this.details = options.details ?? {};
  }
}

/** True if `error` is a BackupError with one of `codes` (any code if none is given). */
export function isBackupError(error: unknown, ...codes: readonly ErrorCode[]): error is BackupError {
  return error instanceof BackupError && (codes.length === 0 || codes.includes(error.code));
}

/** True if `code` is one of ours: for errors that come back over the agent protocol. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(errorCodes, code);
}

/** The sentence of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Throws `bug` unless `condition` holds: for invariants, never for input. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new BackupError('bug', `broken invariant: ${message}`);
}

/** The error of an aborted operation; the signal's own reason when that already is a BackupError. */
export function cancelledBy(signal: AbortSignal): BackupError {
  if (signal.reason instanceof BackupError) return signal.reason;
  return new BackupError('cancelled', 'the operation was cancelled', { cause: signal.reason });
}

/** Throws the reason of an aborted signal as a BackupError. */
export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw cancelledBy(signal);
}
