/** Keystone (with Cinder in its catalog), Swift and Ceph of the stage: the programs of test/support. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Daemons } from './daemons.ts';
import { answersAt } from './brokers.ts';
import { addressesOf, pool, region, type StageSettings } from './settings.ts';

const startTimeoutMs = 120_000;
/** Of the OSD's sparse file. */
const cephBytes = 32 * 1024 ** 3;
const tokenLifeSeconds = 86_400;

const scriptOf = (name: string) => fileURLToPath(new URL(`../support/${name}`, import.meta.url));

export async function startKeystone(settings: StageSettings, daemons: Daemons): Promise<void> {
  const directory = join(settings.directory, 'keystone');
  await mkdir(directory, { recursive: true });
  const { keystone, swift, cinder, glance } = addressesOf(settings);
  const services = [
    { type: 'block-storage', name: 'cinder', url: `${cinder}/v3/$(project_id)s` },
    { type: 'image', name: 'glance', url: glance },
    { type: 'volumev3', name: 'cinderv3', url: `${cinder}/v3/$(project_id)s` },
  ];
  const wanted = {
    directory,
    port: settings.ports.keystone,
    url: keystone,
    swiftUrl: swift,
    region,
    tokenLifeSeconds,
    services,
  };
  await daemons.start({
    name: 'keystone',
    command: '/usr/bin/python3',
    args: [scriptOf('keystone_node.py'), JSON.stringify(wanted)],
    needsInput: true,
  });
  await daemons.ready('keystone', startTimeoutMs, async () =>
    (await daemons.log('keystone')).includes('"projects"'),
  );
}

export async function startSwift(settings: StageSettings, daemons: Daemons): Promise<void> {
  const directory = join(settings.directory, 'swift');
  await mkdir(directory, { recursive: true });
  const { swift: proxy, account, container, object, memcached } = settings.ports;
  const wanted = {
    directory,
    ports: { proxy, account, container, object, memcached },
    keystone: addressesOf(settings).keystone,
    workers: 0,
    tokenLifeSeconds,
    tokenCacheSeconds: 300,
    constraints: '',
    proxyDefault: '',
    proxyApp: '',
    storageDomain: '',
  };
  await daemons.start({
    name: 'swift',
    command: '/usr/bin/python3',
    args: [scriptOf('swift_node.py'), JSON.stringify(wanted)],
    needsInput: true,
  });
  await daemons.ready('swift', startTimeoutMs, async () => await answersAt(proxy));
}

/** Where ceph.conf and the keyrings are; Python's programs see it as /etc/ceph. */
export function cephDirectory({ directory }: StageSettings): string {
  return join(directory, 'ceph');
}

export async function startCeph(settings: StageSettings, daemons: Daemons): Promise<void> {
  const directory = cephDirectory(settings);
  await mkdir(directory, { recursive: true });
  const wanted = {
    directory,
    port: settings.ports.monitor,
    pools: [pool],
    users: ['cinder'],
    file_bytes: cephBytes,
  };
  await daemons.start({
    name: 'ceph',
    command: '/usr/bin/python3',
    args: [scriptOf('ceph_node.py'), JSON.stringify(wanted)],
    needsInput: true,
  });
  await daemons.ready('ceph', startTimeoutMs, async () => (await daemons.log('ceph')).includes('ready '));
}
