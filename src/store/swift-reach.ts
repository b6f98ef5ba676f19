/**
 * The self-test before a user comes: asks `/info` at the server of `backup_swift_url`, without a token, as Cinder does
 * (cinder/backup/drivers/swift.py check_for_setup_error). It tries route, TLS and clock.
 */
import type { Http } from '../openstack/http.ts';
import { clockFinding, type CheckableStore } from './check-store.ts';
import { readInfo } from './swift-capabilities.ts';
import { infoUrl } from './swift-exchange.ts';

/** Its check throws what reaching Swift throws; a Swift that answers but does not tell what it can do is there. */
export function createSwiftReach(http: Http, url: string, now: () => number): CheckableStore {
  return {
    async check(_container, signal) {
      const answer = await http.request({ method: 'GET', url: infoUrl(url), headers: {}, signal });
      await readInfo(answer);
      return clockFinding(answer.header('date'), now());
    },
  };
}
