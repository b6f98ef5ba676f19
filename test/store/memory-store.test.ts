import { randomUUID } from 'node:crypto';
import { objectStoreContract } from '../contract/object-store.ts';
import { createMemoryStore } from '../support/memory-store.ts';

objectStoreContract('memory', () =>
  Promise.resolve({
    store: createMemoryStore(),
    freshContainer: () => `container-${randomUUID()}`,
    dispose: () => Promise.resolve(),
  }),
);
