/** Exchanges with a Swift that a function plays: tokens that are good, requests that are remembered. */
import { createSwiftExchange, type SwiftExchange } from '../../src/store/swift-exchange.ts';
import { createFakeHttp, type FakeHttp } from './fake-http.ts';

export const fakeAccount = 'http://swift/v1/AUTH_p';

export function createFakeSwift(
  answer: Parameters<typeof createFakeHttp>[0],
  storageUrl = fakeAccount,
): {
  readonly exchange: SwiftExchange;
  readonly http: FakeHttp;
} {
  const http = createFakeHttp(answer);
  const grant = { storageUrl, headers: { 'x-auth-token': 'user' }, refuse: () => false };
  const exchange = createSwiftExchange(http, { current: async () => await Promise.resolve(grant) });
  return { exchange, http };
}
