/** Who may use the REST API: everyone who reaches the loopback address, or holders of the token (`X-Auth-Token`). */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { FastifyRequest } from 'fastify';
import { BackupError } from '../model/errors.ts';

export type RestAccess = { readonly token?: string | undefined };

/** Paths that need no token: they tell nothing. */
const open: ReadonlySet<string> = new Set(['/healthz']);

/** A check of requests that throws `access-denied`. Tokens are compared in constant time. */
export function createTokenCheck({ token }: RestAccess): (request: FastifyRequest) => void {
  if (token === undefined) return () => {};
  const wanted = digestOf(token);
  return (request) => {
    if (open.has(request.routeOptions.url ?? '')) return;
    const given = request.headers['x-auth-token'];
    if (typeof given === 'string' && timingSafeEqual(digestOf(given), wanted)) return;
    throw new BackupError(
      'access-denied',
      'The request you have made requires authentication: send X-Auth-Token.',
    );
  };
}

/** True for addresses that only this machine reaches. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true;
  return isIP(host) === 4 && host.startsWith('127.');
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
