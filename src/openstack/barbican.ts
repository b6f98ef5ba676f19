/**
 * Barbican, the keeper of encryption keys: a copy of a secret is made, and a secret removed, as castellan does for Cinder
 * (castellan/key_manager/barbican_key_manager.py; cinder/volume/volume_utils.py, clone_encryption_key and delete_encryption_key).
 *
 * Entry: `createBarbican`, once for each request: a copy belongs to the user and project of the request's token. The
 * bytes of a key are held only between the two requests of a copy, and overwritten after them.
 */
import { retry, type RetryPolicy } from '../async/backoff.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import { isUuid } from '../model/names.ts';
import { describeOffers, findEndpoint, parseCatalog, type Catalog } from './catalog.ts';
import { barbicanFailure, strangeAnswer } from './barbican-error.ts';
import { parseSecret, type Secret } from './barbican-secret.ts';
import type { Http, HttpResponse } from './http.ts';
import type { TokenSource } from './token-source.ts';

/** [barbican] */
export type BarbicanOptions = {
  /** Undefined: from the catalog. */
  readonly endpoint: string | undefined;
  readonly endpointType: 'public' | 'internal' | 'admin';
  readonly regionName: string | undefined;
  /** Part of the URL, `v1`; undefined: that of the endpoint, else `v1`. */
  readonly apiVersion: string | undefined;
};

/** What the request brings: `_context_auth_token`, `_context_service_catalog`. */
export type BarbicanCaller = { readonly authToken: string; readonly serviceCatalog: unknown };

export type BarbicanDeps = {
  readonly options: BarbicanOptions;
  readonly http: Http;
  /** Null where no user asked: then only the service's own credentials are left. */
  readonly caller: BarbicanCaller | null;
  /** [barbican_service_user]: goes beside the user's token, so that an expired one is still taken; null if it is not sent. */
  readonly serviceUser: TokenSource | null;
  /** [keystone_authtoken]: removes what the user may not; null if that section has no credentials. */
  readonly ownCredentials: TokenSource | null;
  readonly retryPolicy: RetryPolicy;
};

export type Barbican = {
  /**
   * Stores a copy of the secret `keyId` and returns its id. Throws `not-found` if there is none, `store-denied` if the
   * user may not read it or store another, `store-unavailable`.
   */
  clone(keyId: string, signal: AbortSignal): Promise<string>;
  /** Removes a secret; succeeds also if it is gone. Throws `store-denied`, `store-unavailable`. */
  remove(keyId: string, signal: AbortSignal): Promise<void>;
};

/** Who asks: the headers of one request, and where it goes. */
type Grant = { readonly baseUrl: string; readonly headers: Readonly<Record<string, string>> };
type Grants = (signal: AbortSignal) => Promise<Grant>;

const largestPayloadBytes = 65_536;
const largestAnswerBytes = 1_048_576;

export function createBarbican(deps: BarbicanDeps): Barbican {
  const { http, retryPolicy, ownCredentials } = deps;

  async function ask(
    grant: Grant,
    request: {
      readonly method: 'GET' | 'POST' | 'DELETE';
      readonly path: string;
      readonly what: string;
      readonly accept?: string;
      readonly body?: string;
    },
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { method, path, what, accept = 'application/json', body } = request;
    const send = async () => {
      const answer = await http.request({
        method,
        url: `${grant.baseUrl}${path}`,
        headers: {
          ...grant.headers,
          accept,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body }),
        signal,
      });
      if (answer.status >= 200 && answer.status < 300) return answer;
      throw barbicanFailure(what, answer.status, await answer.text(largestAnswerBytes));
    };
    // A copy that was stored though its answer was lost would stay for ever: a POST is sent again only where it never arrived.
    const isRetryable = (error: unknown) =>
      isBackupError(error, 'store-unavailable') && (method !== 'POST' || neverArrived(error));
    return await retry(retryPolicy, send, { isRetryable, signal });
  }

  async function read(grant: Grant, keyId: string, signal: AbortSignal) {
    const what = `key ${keyId}`;
    const found = await ask(grant, { method: 'GET', path: `/secrets/${keyId}`, what }, signal);
    const secret = parseSecret(await found.text(largestAnswerBytes), what);
    const path = `/secrets/${keyId}/payload`;
    const answer = await ask(grant, { method: 'GET', path, what, accept: secret.contentType }, signal);
    return { secret, payload: await bytesOf(answer, what) };
  }

  async function store(grant: Grant, secret: Secret, payload: Buffer, signal: AbortSignal): Promise<string> {
    const isText = secret.contentType === 'text/plain';
    const body = JSON.stringify({
      ...secret.kept,
      payload: payload.toString(isText ? 'utf8' : 'base64'),
      payload_content_type: secret.contentType,
      ...(isText ? {} : { payload_content_encoding: 'base64' }),
    });
    const what = 'the copy of a key';
    const answer = await ask(grant, { method: 'POST', path: '/secrets', what, body }, signal);
    return referenceOf(await answer.text(largestAnswerBytes), what);
  }

  async function removeAs(grants: Grants, keyId: string, signal: AbortSignal): Promise<void> {
    const request = { method: 'DELETE', path: `/secrets/${keyId}`, what: `key ${keyId}` } as const;
    try {
      const answer = await ask(await grants(signal), request, signal);
      await answer.discard();
    } catch (error) {
      if (!isBackupError(error, 'not-found')) throw error;
    }
  }

  return {
    async clone(keyId, signal) {
      const grant = await callerGrants(deps)(signal);
      const { secret, payload } = await read(grant, requireKeyId(keyId), signal);
      try {
        return await store(grant, secret, payload, signal);
      } finally {
        payload.fill(0);
      }
    },
    async remove(keyId, signal) {
      requireKeyId(keyId);
      try {
        await removeAs(callerGrants(deps), keyId, signal);
      } catch (error) {
        const mayHelp = isBackupError(error, 'store-denied', 'store-unavailable');
        if (ownCredentials === null || !mayHelp) throw error;
        await removeAs(serviceGrants(deps, ownCredentials), keyId, signal);
      }
    },
  };
}

function callerGrants({ options, caller, serviceUser }: BarbicanDeps): Grants {
  return async (signal) => {
    if (caller === null || caller.authToken === '') {
      throw new BackupError(
        'store-denied',
        'the request carries no user token, so nobody can be asked for the key: start the operation as a user',
      );
    }
    const baseUrl = baseUrlOf(options, parseCatalog(caller.serviceCatalog), 'the catalog of the request');
    const service = await serviceUser?.current(signal);
    return {
      baseUrl,
      headers: {
        'x-auth-token': caller.authToken,
        ...(service === undefined ? {} : { 'x-service-token': service.id }),
      },
    };
  };
}

function serviceGrants({ options }: BarbicanDeps, credentials: TokenSource): Grants {
  return async (signal) => {
    const token = await credentials.current(signal);
    const where = 'the catalog for the user of [keystone_authtoken]';
    return { baseUrl: baseUrlOf(options, token.catalog, where), headers: { 'x-auth-token': token.id } };
  };
}

function baseUrlOf(options: BarbicanOptions, catalog: Catalog, where: string): string {
  const { endpoint, endpointType, regionName, apiVersion } = options;
  const query = { serviceType: 'key-manager', serviceName: 'barbican', endpointType };
  const found = endpoint ?? findEndpoint(catalog, query, regionName);
  if (found === null) {
    const region = regionName === undefined ? '' : ` in region ${regionName}`;
    throw new BackupError(
      'config-invalid',
      `the volume is encrypted, and it is not known where its key is: ${where} has ${describeOffers(catalog, 'key-manager')}, not ${endpointType}${region}; register Barbican as key-manager, or set barbican_endpoint in [barbican]`,
    );
  }
  const url = found.replace(/\/+$/u, '');
  if (apiVersion === undefined && /\/v\d+(\.\d+)?$/u.test(url)) return url;
  return `${url}/${apiVersion ?? 'v1'}`;
}

function requireKeyId(keyId: string): string {
  if (isUuid(keyId)) return keyId;
  throw new BackupError(
    'message-invalid',
    `encryption_key_id ${JSON.stringify(keyId.slice(0, 80))} is no id of a secret in Barbican: the key cannot be copied or removed`,
  );
}

function neverArrived(error: BackupError): boolean {
  return ['ECONNREFUSED', 'UND_ERR_CONNECT_TIMEOUT'].some((code) => error.details['network'] === code);
}

async function bytesOf(answer: HttpResponse, what: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let total = 0;
  for await (const piece of answer.body) {
    pieces.push(piece);
    total += piece.length;
    if (total > largestPayloadBytes)
      throw strangeAnswer(what, `it has more than ${largestPayloadBytes} bytes`);
  }
  const bytes = Buffer.concat(pieces);
  for (const piece of pieces) piece.fill(0);
  if (bytes.length > 0) return bytes;
  throw strangeAnswer(what, 'it is empty');
}

/** The id at the end of `secret_ref`, `http://host:9311/v1/secrets/<id>`. */
function referenceOf(text: string, what: string): string {
  const id = /"secret_ref"\s*:\s*"[^"]*\/([0-9a-f-]{36})"/u.exec(text)?.[1];
  if (id !== undefined) return requireKeyId(id);
  throw strangeAnswer(what, 'the answer has no secret_ref');
}
