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

/** A gate has nobody who starts it again: it waits out a lock that is held and a mirror that fails. */
const gatePatience = { rounds: 10, pauseMs: 15_000, retries: 5 };
/** A developer's machine may be without a network, where waiting changes nothing: seconds in all. */
const usualPatience = { rounds: 2, pauseMs: 2000, retries: 1 };

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

/**
 * Installs `missing` when this is root on a Debian, in as many rounds as it takes, up to a bound that is higher with CI=true;
 * returns what is missing afterwards.
 */
export function installPackages(state: PackageState): PackageState {
  if (state.missing.length === 0 || process.getuid?.() !== 0) return state;
  const { rounds, pauseMs, retries } = process.env['CI'] === 'true' ? gatePatience : usualPatience;
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', APT_LISTCHANGES_FRONTEND: 'none' };
  const apt = (...args: readonly string[]) =>
    spawnSync(
      'apt-get',
      ['-q', '-o', 'DPkg::Lock::Timeout=900', '-o', `Acquire::Retries=${retries}`, ...args],
      { env, stdio: ['ignore', 'inherit', 'inherit'] },
    );
  const install = (): boolean => {
    const allowStarts = forbidStarts();
    try {
      return apt('install', '-y', '--no-install-recommends', ...state.missing).status === 0;
    } finally {
      allowStarts();
    }
  };
  for (let round = 1; round <= rounds; round += 1) {
    if (round > 1) pause(pauseMs);
    if (apt('update').error !== undefined) return state;
    // An update that got nothing ends with 0 too, and old lists may do: only the installation tells.
    if (install()) break;
  }
  return packageState(state.missing);
}

function pause(durationMs: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, durationMs);
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
