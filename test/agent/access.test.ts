import { describe, expect, test } from 'vitest';
import { requireSafeAddress } from '../../src/agent/access.ts';

const tls = { cert: 'cert', key: 'key' };

describe('requireSafeAddress', () => {
  test.each([
    ['loopback without anything', '127.0.0.1', {}, false],
    ['another loopback address', '127.8.0.1', {}, false],
    ['loopback of IPv6', '::1', {}, false],
    ['localhost', 'localhost', {}, false],
    ['everywhere with client certificates', '0.0.0.0', { tls: { ...tls, ca: 'ca' } }, false],
    ['everywhere with TLS and a token', '::', { tls, token: 'secret' }, false],
    ['a trusted network with a token', '10.0.0.7', { token: 'secret' }, true],
  ])('allows %s', (_title, host, access, allowPlaintext) => {
    expect(() => requireSafeAddress(host, access, allowPlaintext)).not.toThrow();
  });

  test.each([
    ['everywhere without anything', '0.0.0.0', {}, false],
    ['everywhere without anything on a trusted network', '0.0.0.0', {}, true],
    ['every IPv6 address', '::', {}, true],
    ['an address of a network', '192.168.1.4', {}, true],
    ['a name that only looks like loopback', '127.0.0.1.example.org', {}, true],
    ['TLS without a way to tell clients', '0.0.0.0', { tls }, false],
    ['a token in clear text', '10.0.0.7', { token: 'secret' }, false],
    ['an empty token', '127.0.0.1', { token: '' }, true],
  ])('refuses %s', (_title, host, access, allowPlaintext) => {
    expect(() => requireSafeAddress(host, access, allowPlaintext)).toThrow(
      expect.objectContaining({ code: 'config-invalid' }),
    );
  });
});
