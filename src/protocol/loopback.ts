/**
 * What stays on this machine: addresses, and requests to a server that listens on loopback without asking who calls.
 * A web page can make its visitor's browser send requests there, under the page's own name (DNS rebinding) or as
 * requests of a foreign origin; neither is a caller of this machine.
 */
import { isIP } from 'node:net';
import { BackupError } from '../model/errors.ts';

const loopbackHost = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i;

/** True for addresses that only this machine reaches. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true;
  return isIP(host) === 4 && host.startsWith('127.');
}

/**
 * Throws `access-denied` unless a request was addressed to a loopback name and, if it says which page it comes
 * from, that is one of the same server (RFC 9110 section 7.2, RFC 6454 section 7).
 */
export function requireLocalCaller(headers: {
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
}): void {
  const { host = '', origin } = headers;
  if (!loopbackHost.test(host)) {
    throw new BackupError(
      'access-denied',
      `requests for host ${JSON.stringify(host.slice(0, 80))} are not served without a token: use localhost, 127.0.0.1 or [::1], or set a token`,
    );
  }
  if (origin === undefined) return;
  const from = URL.canParse(origin) ? new URL(origin).host : '';
  if (from.toLowerCase() === host.toLowerCase()) return;
  throw new BackupError(
    'access-denied',
    `requests from pages of ${JSON.stringify(origin.slice(0, 80))} are not served without a token: set a token`,
  );
}
