/**
 * Who may use the agent: holders of the token, of a client certificate that the configured authority signed, or,
 * with neither configured, every program of this machine (but no page in a browser of it).
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { ServerOptions } from 'node:https';
import type { FastifyRequest } from 'fastify';
import { BackupError } from '../model/errors.ts';
import { isLoopback, requireLocalCaller } from '../protocol/loopback.ts';

export type AgentAccess = {
  /** Shared secret of `Authorization: Bearer`. */
  readonly token?: string | undefined;
  /** PEM texts. With `ca`, only clients with a certificate of that authority get through. */
  readonly tls?:
    { readonly cert: string; readonly key: string; readonly ca?: string | undefined } | undefined;
};

/** Options for node:https, or null for plain HTTP. */
export function tlsOptions(access: AgentAccess): ServerOptions | null {
  if (access.tls === undefined) return null;
  const { cert, key, ca } = access.tls;
  const server: ServerOptions = { cert, key, minVersion: 'TLSv1.2' };
  return ca === undefined ? server : { ...server, ca, requestCert: true, rejectUnauthorized: true };
}

/** A check of requests that throws `access-denied`. Tokens are compared in constant time. */
export function createAccessCheck(access: AgentAccess): (request: FastifyRequest) => void {
  const { tls, token } = access;
  if (token === undefined) {
    return tls?.ca === undefined ? (request) => requireLocalCaller(request.headers) : () => {};
  }
  const wanted = digestOf(token);
  return (request) => {
    const given = /^Bearer +(.+)$/i.exec(request.headers.authorization ?? '')?.[1];
    if (given !== undefined && timingSafeEqual(digestOf(given), wanted)) return;
    throw new BackupError(
      'access-denied',
      'the agent asks for its token: send Authorization: Bearer <token>',
    );
  };
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/**
 * Throws `config-invalid` where an address would open the agent to everyone, or send the token in clear text, unless
 * `allowPlaintext` says that the network is trusted.
 */
export function requireSafeAddress(host: string, access: AgentAccess, allowPlaintext: boolean): void {
  if (access.token === '')
    throw new BackupError('config-invalid', "the agent's token is empty: set one or leave it out");
  if (isLoopback(host)) return;
  if (access.token === undefined && access.tls?.ca === undefined) {
    throw new BackupError(
      'config-invalid',
      `the agent does not listen on ${host} without access control: give it a token, or a certificate authority for client certificates`,
    );
  }
  if (access.tls === undefined && !allowPlaintext) {
    throw new BackupError(
      'config-invalid',
      `the agent does not listen on ${host} without TLS, since its token would be readable: give it a certificate and key, or allow plain text explicitly`,
    );
  }
}
