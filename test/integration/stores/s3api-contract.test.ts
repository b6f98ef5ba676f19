/** The object store contract on Swift's s3api. */
import { randomUUID } from 'node:crypto';
import { objectStoreContract } from '../../contract/object-store.ts';
import { s3ApiOptions, s3Store } from '../../support/cloud-stores.ts';
import { startSwift } from '../../support/swift-server.ts';

objectStoreContract('S3, s3api of Swift', async () => {
  const server = await startSwift();
  return {
    store: s3Store(s3ApiOptions(server.url)),
    freshContainer: () => `volumebackups-${randomUUID()}`,
    dispose: () => server.stop(),
  };
});
