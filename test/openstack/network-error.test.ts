import { describe, expect, test } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { networkError } from '../../src/openstack/network-error.ts';

const limits = {
  service: { name: 'Swift', urlOption: 'the_url', caOption: 'the_ca', insecureOption: 'the_insecure' },
  connectTimeoutMs: 1234,
  idleTimeoutMs: 5678,
};
const target = new URL('https://swift.example:8080/v1/AUTH_1/secret?x=y');
const withCode = (code: string) => Object.assign(new Error(`raw ${code}`), { code });

describe('an error of the network', () => {
  test.each([
    ['ECONNREFUSED', 'store-unavailable', 'refuses connections: start it, or correct the_url'],
    ['ENOTFOUND', 'store-unavailable', 'the name swift.example of Swift does not resolve'],
    ['EHOSTUNREACH', 'store-unavailable', 'no route to Swift'],
    ['UND_ERR_CONNECT_TIMEOUT', 'store-unavailable', 'within 1234 ms'],
    ['UND_ERR_HEADERS_TIMEOUT', 'store-unavailable', 'did not answer for 5678 ms'],
    ['UND_ERR_BODY_TIMEOUT', 'store-unavailable', 'stopped sending for 5678 ms'],
    ['ECONNRESET', 'store-unavailable', 'closed the connection'],
    ['UND_ERR_SOCKET', 'store-unavailable', 'closed the connection'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'store-denied', 'name its CA in the_ca, or set the_insecure'],
    ['CERT_HAS_EXPIRED', 'store-denied', 'has expired'],
    ['CERT_NOT_YET_VALID', 'store-denied', 'the clock here is wrong'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'store-denied', 'for another name'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'store-denied', 'does not speak TLS'],
    ['EWHATEVER', 'store-unavailable', 'raw EWHATEVER'],
  ])('%s is %s: %s', (code, kind, words) => {
    const error = networkError(limits, target, withCode(code));
    expect(error).toMatchObject({ code: kind, message: expect.stringContaining(words) });
    expect(error.details).toEqual({ network: code, origin: 'https://swift.example:8080' });
    expect(error.message).not.toContain('secret');
  });

  test('is known by the code of its cause', () => {
    const error = networkError(limits, target, new TypeError('failed', { cause: withCode('ECONNREFUSED') }));
    expect(error.details['network']).toBe('ECONNREFUSED');
  });

  test('that is ours already goes through', () => {
    const ours = new BackupError('cancelled', 'stopped');
    expect(networkError(limits, target, ours)).toBe(ours);
  });
});
