/**
 * Who may use the REST API: holders of the token (`X-Auth-Token`), or without one every program of this machine (but
 * no page in a browser of it).
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { BackupError } from '../model/errors.ts';
import { requireLocalCaller } from '../protocol/loopback.ts';

export type RestAccess = { readonly token?: string | undefined };

/** Paths that need no token: they tell nothing. */
const open: ReadonlySet<string> = new Set(['/healthz']);

/** A check of requests that throws `access-denied`. Tokens are compared in constant time. */
export function createTokenCheck({ token }: RestAccess): (request: FastifyRequest) => void {
  if (token === undefined) return (request) => requireLocalCaller(request.headers);
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

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
