/** What went wrong below HTTP, in words that name the server and the remedy. */
import { BackupError, messageOf } from '../model/errors.ts';

/** How the sentences call a service and its options. */
export type ServiceName = {
  /** `Swift`, `S3`, `Keystone`. */
  readonly name: string;
  readonly urlOption: string;
  readonly caOption: string;
  readonly insecureOption: string;
};

type Limits = {
  readonly service: ServiceName;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
};

/** A failure of undici, of the socket or of TLS as a BackupError; `details.network` keeps its code. */
export function networkError(limits: Limits, target: URL, error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  const code = codeOf(error);
  const { service } = limits;
  const where = `${service.name} at ${target.origin}`;
  const build = (kind: 'store-unavailable' | 'store-denied', sentence: string) =>
    new BackupError(kind, sentence, { cause: error, details: { network: code, origin: target.origin } });

  const untrusted = trustProblem(code);
  if (untrusted !== null) {
    return build(
      'store-denied',
      `${where} is not trusted: ${untrusted} (${code}); name its CA in ${service.caOption}, or set ${service.insecureOption}`,
    );
  }
  const proxyStatus = /prox.*\((\d{3})\)/i.exec(messageOf(error))?.[1];
  if (proxyStatus !== undefined) {
    return build(
      proxyStatus.startsWith('5') ? 'store-unavailable' : 'store-denied',
      `the proxy before ${where} answers ${proxyStatus}: correct the proxy, its user and its password`,
    );
  }
  switch (code) {
    case 'ECONNREFUSED':
      return build(
        'store-unavailable',
        `${where} refuses connections: start it, or correct ${service.urlOption}`,
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return build(
        'store-unavailable',
        `the name ${target.hostname} of ${service.name} does not resolve (${code}): correct ${service.urlOption} or the name service`,
      );
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'EADDRNOTAVAIL':
      return build(
        'store-unavailable',
        `no route to ${where} (${code}): check the network, or ${service.urlOption}`,
      );
    case 'UND_ERR_CONNECT_TIMEOUT':
    case 'ETIMEDOUT':
      return build(
        'store-unavailable',
        `${where} did not accept a connection within ${limits.connectTimeoutMs} ms: check the network, or ${service.urlOption}`,
      );
    case 'UND_ERR_HEADERS_TIMEOUT':
      return build(
        'store-unavailable',
        `${where} did not answer for ${limits.idleTimeoutMs} ms: it hangs, or is overloaded`,
      );
    case 'UND_ERR_BODY_TIMEOUT':
      return build('store-unavailable', `${where} stopped sending for ${limits.idleTimeoutMs} ms`);
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return build('store-denied', `${where} does not speak TLS: correct the scheme in ${service.urlOption}`);
    case 'ECONNRESET':
    case 'EPIPE':
    case 'UND_ERR_SOCKET':
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
      return build('store-unavailable', `${where} closed the connection before the answer was complete`);
    default:
      return build('store-unavailable', `the exchange with ${where} failed: ${messageOf(error)}`);
  }
}

function trustProblem(code: string): string | null {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'its certificate is for another name';
  if (code === 'CERT_HAS_EXPIRED') return 'its certificate has expired';
  if (code === 'CERT_NOT_YET_VALID') return 'its certificate is not valid yet, or the clock here is wrong';
  if (/SELF_SIGNED|UNABLE_TO_(VERIFY|GET)|CERT_UNTRUSTED|UNABLE_TO_DECRYPT/.test(code)) {
    return 'its certificate is signed by an authority that is not known here';
  }
  return code.startsWith('CERT_') ? 'its certificate is not valid' : null;
}

/** The `code` of an error, or of the nearest cause that has one. */
function codeOf(error: unknown): string {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth += 1) {
    if ('code' in at && typeof at.code === 'string') return at.code;
  }
  return error instanceof Error ? error.name : 'UNKNOWN';
}
