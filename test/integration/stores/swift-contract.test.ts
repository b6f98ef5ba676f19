/** The object store contract on a real Swift with TempAuth. */
import { randomUUID } from 'node:crypto';
import { objectStoreContract } from '../../contract/object-store.ts';
import { swiftStore, tempAuthOptions } from '../../support/cloud-stores.ts';
import { startSwift } from '../../support/swift-server.ts';

objectStoreContract('Swift, TempAuth v1', async () => {
  const server = await startSwift({ constraints: 'container_listing_limit = 250' });
  return {
    store: swiftStore(tempAuthOptions(server.authUrl)),
    freshContainer: () => `volumebackups-${randomUUID()}`,
    dispose: () => server.stop(),
  };
});
