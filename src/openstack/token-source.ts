/**
 * Tokens: fetched when first needed, kept until shortly before they expire, renewed once for all who wait.
 *
 * Entry: `createTokenSource` around a log-in, `createFixedToken` for a token that came with a request and cannot be renewed.
 */
import { untilAborted } from '../async/until-aborted.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import type { Catalog } from './catalog.ts';

export type Token = {
  readonly id: string;
  /** Milliseconds since 1970; null when the issuer does not say. */
  readonly expiresAtMs: number | null;
  readonly catalog: Catalog;
  /** What TempAuth gives in place of a catalog. */
  readonly storageUrl: string | null;
};

export type TokenSource = {
  /** A token that is not known to be bad. Throws what the log-in throws. */
  current(signal: AbortSignal): Promise<Token>;
  /** Says that `token` was refused. True if `current` will now give another one. */
  refuse(token: Token): boolean;
};

/** Logs in; the signal ends it. */
export type LogIn = (signal: AbortSignal) => Promise<Token>;

/** A token is renewed when less than this is left of it, longer than one request may take; a short-lived one when a tenth is left. */
const renewBeforeMs = 120_000;
const logInTimeoutMs = 120_000;

export function createTokenSource(logIn: LogIn, now: () => number): TokenSource {
  let held: { readonly token: Token; readonly renewAtMs: number } | undefined;
  let fetching: Promise<Token> | undefined;

  // One log-in serves all callers, so no caller's signal may end it.
  const fetch = () => {
    fetching ??= logIn(AbortSignal.timeout(logInTimeoutMs))
      .then((token) => {
        held = { token, renewAtMs: renewalTime(token, now()) };
        return token;
      })
      .finally(() => (fetching = undefined));
    return fetching;
  };

  return {
    async current(signal) {
      throwIfAborted(signal);
      if (held !== undefined && now() < held.renewAtMs) return held.token;
      return await waitForLogIn(fetch(), signal);
    },
    refuse(token) {
      if (held?.token.id === token.id) held = undefined;
      return true;
    },
  };
}

function renewalTime(token: Token, at: number): number {
  if (token.expiresAtMs === null) return Infinity;
  return token.expiresAtMs - Math.min(renewBeforeMs, (token.expiresAtMs - at) / 10);
}

export function createFixedToken(token: Token): TokenSource {
  return {
    current: async (signal) => {
      throwIfAborted(signal);
      return token;
    },
    refuse: () => false,
  };
}

async function waitForLogIn<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  try {
    return await untilAborted(work, signal);
  } catch (error) {
    if (isBackupError(error, 'cancelled') && !signal.aborted) {
      throw new BackupError('store-unavailable', `the log-in took more than ${logInTimeoutMs} ms`, {
        cause: error,
      });
    }
    throw error;
  }
}
