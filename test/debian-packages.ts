/**
 * The Debian packages that the tests need: Cinder's own driver, the deflate libraries, file systems with
 * reflinks, servers. As root what is missing is installed; otherwise the command that does it is told.
 */
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';

/** Installed with apt-get, without recommended packages. */
export const neededPackages = [
  'python3-cinder',
  'python3-zstd',
  'libisal2',
  'libdeflate0',
  'bzip2',
  'xfsprogs',
  'btrfs-progs',
  'e2fsprogs',
  'mount',
  'util-linux',
  'swift-proxy',
  'swift-account',
  'swift-container',
  'swift-object',
  'memcached',
  'keystone',
  'python3-barbican',
  'python3-keystonemiddleware',
  'python3-swiftclient',
  'python3-boto3',
  'radosgw',
  'ceph-mon',
  'ceph-osd',
  'ceph-common',
  'rabbitmq-server',
  'mariadb-server-core',
  'mariadb-client-core',
  'postgresql',
  'cinder-common',
  'cinder-api',
  'cinder-scheduler',
  'cinder-volume',
  'cinder-backup',
  'python3-cinderclient',
  'python3-rados',
  'python3-rbd',
  'python3-pymysql',
  'python3-psycopg2',
  'openssl',
] as const;

const startPolicy = '/usr/sbin/policy-rc.d';

/** `missing` packages are not installed; `installCommand` says how to get them. */
export type PackageState = { readonly missing: readonly string[]; readonly installCommand: string };

/** What of `wanted` is not installed. Where there is no dpkg, all of it. */
export function packageState(wanted: readonly string[] = neededPackages): PackageState {
  const query = spawnSync('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\n', ...wanted], {
    encoding: 'utf8',
  });
  const installed = new Set(
    (query.stdout ?? '')
      .split('\n')
      .map((line) => line.split(' '))
      .filter(([, status]) => status === 'installed')
      .map(([name]) => name),
  );
  const missing = wanted.filter((name) => !installed.has(name));
  return {
    missing,
    installCommand: `apt-get update && apt-get install -y --no-install-recommends ${missing.join(' ')}`,
  };
}

/** Installs `missing` when this is root on a Debian; returns what is missing afterwards. */
export function installPackages(state: PackageState): PackageState {
  if (state.missing.length === 0 || process.getuid?.() !== 0) return state;
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', APT_LISTCHANGES_FRONTEND: 'none' };
  const apt = (...args: readonly string[]) =>
    spawnSync('apt-get', ['-q', '-o', 'DPkg::Lock::Timeout=900', ...args], {
      env,
      stdio: ['ignore', 'inherit', 'inherit'],
    });
  if (apt('update').error !== undefined) return state;
  const allowStarts = forbidStarts();
  try {
    apt('install', '-y', '--no-install-recommends', ...state.missing);
  } finally {
    allowStarts();
  }
  return packageState(state.missing);
}

/** Keeps Debian from starting the servers it installs (policy-rc.d): the tests start their own, on loopback. */
function forbidStarts(): () => void {
  try {
    writeFileSync(startPolicy, '#!/bin/sh\nexit 101\n', { mode: 0o755, flag: 'wx' });
    return () => rmSync(startPolicy);
  } catch {
    return () => undefined;
  }
}
