import { describe, expect, test } from 'vitest';
import { isLoopback, requireLocalCaller } from '../../src/protocol/loopback.ts';

describe('requireLocalCaller', () => {
  test.each([
    ['localhost', undefined],
    ['LOCALHOST:8777', undefined],
    ['127.0.0.1', undefined],
    ['127.8.9.10:41234', undefined],
    ['[::1]:8777', undefined],
    ['localhost:8776', 'http://localhost:8776'],
    ['127.0.0.1:8776', 'https://127.0.0.1:8776'],
    ['[::1]', 'http://[::1]'],
  ])('lets in a request for %s from %s', (host, origin) => {
    expect(() => requireLocalCaller({ host, origin })).not.toThrow();
  });

  test.each([
    ['no host', undefined],
    ['an empty host', ''],
    ['a name that an attacker points here', 'rebind.example.org:8776'],
    ['a name that begins like loopback', '127.0.0.1.example.org'],
    ['a name that ends like loopback', 'example.org.localhost.example'],
    ['another address', '10.0.0.7:8776'],
    ['a user before the host', 'example.org@127.0.0.1'],
    ['a path behind the host', '127.0.0.1/x'],
    ['two hosts', '127.0.0.1, example.org'],
  ])('refuses %s', (_title, host) => {
    expect(() => requireLocalCaller({ host })).toThrow(expect.objectContaining({ code: 'access-denied' }));
  });

  test.each([
    'http://example.org',
    'http://localhost:3000',
    'http://127.0.0.1:8776',
    'null',
    '',
    'file://',
    'http://localhost:8776.example.org',
  ])('refuses a page of %s', (origin) => {
    expect(() => requireLocalCaller({ host: 'localhost:8776', origin })).toThrow(
      expect.objectContaining({ code: 'access-denied' }),
    );
  });
});

describe('isLoopback', () => {
  test('tells addresses of this machine from others', () => {
    expect(['127.0.0.1', '127.3.0.1', '::1', 'localhost'].map(isLoopback)).toEqual([true, true, true, true]);
    expect(['0.0.0.0', '::', '128.0.0.1', '127.0.0.1.example.org'].map(isLoopback)).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });
});
