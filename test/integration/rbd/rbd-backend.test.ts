import { afterAll, beforeAll } from 'vitest';
import { describeVolumeBackend, type BackendUnderTest } from '../../contract/volume-backend.ts';
import { startCeph, type CephCluster } from '../../support/ceph-cluster.ts';
import { createImage, imageFeatures, openRbdBackend, resizeImage } from '../../support/rbd-volumes.ts';

/** An object that came into being is named as a whole. */
const objectBytes = 1024 * 1024;

let cluster: CephCluster;

beforeAll(async () => {
  cluster = await startCeph();
});
afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

async function under(features: string): Promise<BackendUnderTest> {
  const backend = await openRbdBackend(cluster);
  return {
    backend,
    owner: {
      create: (volume, sizeBytes) => createImage(cluster, volume, sizeBytes, { features }),
      resize: (volume, sizeBytes) => resizeImage(cluster, volume, sizeBytes),
    },
    dispose: () => backend.close(),
  };
}

for (const [title, features] of Object.entries(imageFeatures)) {
  describeVolumeBackend(`RBD images, ${title}`, () => under(features), {
    delta: 'extents',
    zeroed: 'data',
    grainBytes: objectBytes,
    makesVolumes: false,
  });
}
