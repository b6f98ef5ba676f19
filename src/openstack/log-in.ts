/**
 * Logging in: Keystone v3 and v2, and the v1 protocol of Swift's TempAuth. One function for each, all giving a `Token`.
 * The requests are those of python-swiftclient 4.1 (client.py, get_auth_1_0, get_auth_keystone) and of keystoneauth.
 */
import { BackupError } from '../model/errors.ts';
import { parseCatalog } from './catalog.ts';
import type { Http, HttpResponse } from './http.ts';
import type { LogIn, Token } from './token-source.ts';

/** Credentials as keystoneauth takes them from a section of cinder.conf; undefined is not configured. */
export type KeystoneIdentity =
  | {
      readonly kind: 'password';
      readonly username: string | undefined;
      readonly userId: string | undefined;
      readonly password: string;
      readonly userDomainName: string | undefined;
      readonly userDomainId: string | undefined;
      readonly scope: KeystoneScope;
    }
  | {
      readonly kind: 'application-credential';
      readonly id: string | undefined;
      readonly name: string | undefined;
      readonly secret: string;
      readonly username: string | undefined;
      readonly userDomainName: string | undefined;
    };

/** What the token is for; without any of it the answer has no catalog. */
export type KeystoneScope = {
  readonly projectName: string | undefined;
  readonly projectId: string | undefined;
  readonly projectDomainName: string | undefined;
  readonly projectDomainId: string | undefined;
  readonly systemScope: string | undefined;
};

/** Keystone v3, `POST <authUrl>/v3/auth/tokens`; a path that ends in a version is taken as it is. */
export function keystoneV3(http: Http, authUrl: string, identity: KeystoneIdentity): LogIn {
  const url = `${versioned(authUrl, 'v3')}/auth/tokens`;
  return async (signal) => {
    const answer = await http.request({
      method: 'POST',
      url,
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: JSON.stringify(v3Body(identity)),
      signal,
    });
    const body = await readJson(url, answer, [200, 201]);
    const id = answer.header('x-subject-token');
    if (id === null) throw strange(url, 'it has no X-Subject-Token');
    const token = field(body, 'token');
    return {
      id,
      expiresAtMs: timeOf(field(token, 'expires_at')),
      catalog: parseCatalog(field(token, 'catalog')),
      storageUrl: null,
    };
  };
}

/** Keystone v2, `POST <authUrl>/v2.0/tokens`, for clouds older than Queens. */
export function keystoneV2(
  http: Http,
  authUrl: string,
  identity: { readonly user: string; readonly password: string; readonly tenant: string | undefined },
): LogIn {
  const url = `${versioned(authUrl, 'v2.0')}/tokens`;
  return async (signal) => {
    const answer = await http.request({
      method: 'POST',
      url,
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: JSON.stringify({
        auth: {
          passwordCredentials: { username: identity.user, password: identity.password },
          ...(identity.tenant === undefined ? {} : { tenantName: identity.tenant }),
        },
      }),
      signal,
    });
    const access = field(await readJson(url, answer, [200, 203]), 'access');
    const token = field(access, 'token');
    const id = field(token, 'id');
    if (typeof id !== 'string') throw strange(url, 'it has no access.token.id');
    return {
      id,
      expiresAtMs: timeOf(field(token, 'expires')),
      catalog: parseCatalog(field(access, 'serviceCatalog')),
      storageUrl: null,
    };
  };
}

/** TempAuth, `GET <authUrl>` with X-Auth-User and X-Auth-Key. */
export function tempAuthV1(
  http: Http,
  authUrl: string,
  identity: { readonly user: string; readonly key: string },
  now: () => number,
): LogIn {
  return async (signal): Promise<Token> => {
    const answer = await http.request({
      method: 'GET',
      url: authUrl,
      headers: { 'x-auth-user': identity.user, 'x-auth-key': identity.key },
      signal,
    });
    await requireStatus(authUrl, answer, [200, 204]);
    const id = answer.header('x-auth-token') ?? answer.header('x-storage-token');
    const storageUrl = answer.header('x-storage-url');
    if (id === null || storageUrl === null)
      throw strange(authUrl, 'it has no X-Auth-Token or no X-Storage-Url');
    const seconds = Number(answer.header('x-auth-token-expires') ?? Number.NaN);
    return {
      id,
      expiresAtMs: Number.isFinite(seconds) ? now() + seconds * 1000 : null,
      catalog: [],
      storageUrl,
    };
  };
}

function v3Body(identity: KeystoneIdentity): unknown {
  if (identity.kind === 'application-credential') {
    const { id, name, secret, username, userDomainName } = identity;
    const user = { name: username, domain: domainOf(userDomainName, undefined) };
    const credential = id === undefined ? { name, secret, user } : { id, secret };
    return {
      auth: { identity: { methods: ['application_credential'], application_credential: credential } },
    };
  }
  const { username, userId, password, userDomainName, userDomainId, scope } = identity;
  const user =
    userId === undefined
      ? { name: username, domain: domainOf(userDomainName, userDomainId), password }
      : { id: userId, password };
  return {
    auth: { identity: { methods: ['password'], password: { user } }, ...scopeOf(scope) },
  };
}

function scopeOf(scope: KeystoneScope): { readonly scope?: unknown } {
  if (scope.projectId !== undefined) return { scope: { project: { id: scope.projectId } } };
  if (scope.projectName !== undefined) {
    const domain = domainOf(scope.projectDomainName, scope.projectDomainId);
    return { scope: { project: { name: scope.projectName, domain } } };
  }
  return scope.systemScope === undefined ? {} : { scope: { system: { all: true } } };
}

/** Keystone's own domain `default` where none is configured. */
function domainOf(name: string | undefined, id: string | undefined): unknown {
  if (id !== undefined) return { id };
  return name === undefined ? { id: 'default' } : { name };
}

function versioned(authUrl: string, version: string): string {
  const base = authUrl.replace(/\/+$/, '');
  return /\/v\d+(\.\d+)?$/.test(base) ? base : `${base}/${version}`;
}

async function requireStatus(url: string, answer: HttpResponse, wanted: readonly number[]): Promise<string> {
  const text = await answer.text(1_048_576);
  const { status } = answer;
  if (wanted.includes(status)) return text;
  const details = { status, url };
  if (status === 401 || status === 403) {
    throw new BackupError(
      'store-denied',
      `${url} refuses the user or the key (${status}): correct user, key, project and domains of the log-in`,
      { details },
    );
  }
  if (status >= 500 || status === 429 || status === 408) {
    throw new BackupError('store-unavailable', `${url} cannot log anybody in now (${status})`, { details });
  }
  throw new BackupError(
    'store-denied',
    `${url} answers ${status} to a log-in (${excerpt(text)}): check the URL, the version of the protocol and the domains`,
    { details },
  );
}

async function readJson(url: string, answer: HttpResponse, wanted: readonly number[]): Promise<unknown> {
  const text = await requireStatus(url, answer, wanted);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new BackupError('store-denied', `what ${url} answers to a log-in is not JSON: check the URL`, {
      cause,
    });
  }
}

function field(from: unknown, key: string): unknown {
  if (typeof from !== 'object' || from === null) return undefined;
  return Object.entries(from).find(([name]) => name === key)?.[1];
}

/** Keystone's `2026-11-22T09:12:16.000000Z`; null when it is missing or something else. */
function timeOf(value: unknown): number | null {
  const time = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isNaN(time) ? null : time;
}

function strange(url: string, why: string): BackupError {
  return new BackupError(
    'store-denied',
    `the answer of ${url} is not that of a log-in: ${why}; check the URL`,
  );
}

function excerpt(text: string): string {
  return text.replaceAll(/\s+/g, ' ').slice(0, 200);
}
