/** RBD volumes of a test cluster: the backend that serves them, and Cinder's part, which makes and grows them. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createRbdBackend } from '../../src/agent/rbd-backend.ts';
import type { ClusterSettings } from '../../src/agent/rbd-steps.ts';
import type { VolumeBackend } from '../../src/agent/volume-backend.ts';
import { createLogger, type Logger } from '../../src/log.ts';
import type { CephCluster } from './ceph-cluster.ts';

/** What Cinder gives new images (rbd_default_features), and what old or restricted ones have. */
export const imageFeatures = {
  mapped: 'layering,exclusive-lock,object-map,fast-diff,deep-flatten',
  plain: 'layering',
} as const;

/**
 * A ceph.conf of the cluster as a storage node has it: it names the keyring of `user`, and nothing of the daemons. Returns
 * its path.
 */
export async function clientConf(cluster: CephCluster, user: string): Promise<string> {
  const conf = await readFile(cluster.conf, 'utf8');
  const host = /^mon host = .*$/m.exec(conf)?.[0] ?? '';
  const path = join(cluster.directory, `client.${user}.conf`);
  const keyring = join(cluster.directory, `ceph.client.${user}.keyring`);
  await writeFile(
    path,
    `[global]\nfsid = ${cluster.fsid}\n${host}\nms mon client mode = crc\n[client.${user}]\nkeyring = ${keyring}\n`,
  );
  return path;
}

export async function rbdSettings(
  cluster: CephCluster,
  given: Partial<ClusterSettings> = {},
): Promise<ClusterSettings> {
  return {
    clusterName: 'ceph',
    user: 'cinder',
    cephConf: await clientConf(cluster, 'cinder'),
    pool: 'volumes',
    connectTimeoutS: 15,
    answerTimeoutS: 30,
    watchTimeoutS: 40,
    ...given,
  };
}

export async function openRbdBackend(
  cluster: CephCluster,
  given: Partial<ClusterSettings> = {},
  log: Logger = createLogger({ level: 'silent' }),
  restoring = new Set<string>(),
): Promise<VolumeBackend> {
  return await createRbdBackend({
    name: 'ceph',
    settings: await rbdSettings(cluster, given),
    restoring,
    log,
  });
}

/** Objects of 1 MiB unless said: small volumes have several. */
export function createImage(
  cluster: CephCluster,
  name: string,
  sizeBytes: number,
  options: { readonly features?: string; readonly objectSize?: string; readonly pool?: string } = {},
): Promise<string> {
  const { features = imageFeatures.mapped, objectSize = '1M', pool = 'volumes' } = options;
  const shape = ['--object-size', objectSize, '--image-feature', features];
  return cluster.rbd('create', `${pool}/${name}`, '--size', `${sizeBytes}B`, ...shape);
}

export function resizeImage(cluster: CephCluster, name: string, sizeBytes: number): Promise<string> {
  return cluster.rbd('resize', `volumes/${name}`, '--size', `${sizeBytes}B`, '--no-progress');
}
