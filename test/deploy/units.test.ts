/** The units under deploy/openstack let the programs write where cinder.conf may tell them to. */
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { nfsMountPoint } from '../../src/config/nfs-mount-point.ts';

/** What systemd.exec(5) closes of the file system. */
const closed: Readonly<Record<string, readonly string[]>> = {
  'ProtectSystem=full': ['/usr', '/boot', '/efi', '/etc'],
  'ProtectSystem=strict': ['/'],
  'ProtectHome=yes': ['/home', '/root', '/run/user'],
};

const isBelow = (path: string, directory: string) =>
  directory === '/' || path === directory || path.startsWith(`${directory}/`);

function canWrite(unit: string, path: string): boolean {
  const lines = unit.split('\n');
  const opened = lines.flatMap((line) => /^ReadWritePaths=(.*)$/u.exec(line)?.[1]?.split(' ') ?? []);
  if (opened.some((directory) => isBelow(path, directory))) return true;
  return !lines.some((line) => closed[line]?.some((directory) => isBelow(path, directory)) === true);
}

test.each([
  ['the directory of the posix driver', '/var/lib/cinder/backup/ab/cd'],
  ['a directory of the posix driver elsewhere', '/backup/ab/cd'],
  ['the mount of the nfs driver', nfsMountPoint('/var/lib/cinder/backup_mount', 'nfs1:/export/backup')],
  ['the log of the packages', '/var/log/cinder/cinder-backup.log'],
])('the service can write to %s', async (_what, path) => {
  const unit = await readFile(
    new URL('../../deploy/openstack/cinder-delta.service', import.meta.url),
    'utf8',
  );
  expect(canWrite(unit, path)).toBe(true);
  expect(canWrite(unit, '/etc/cinder/cinder.conf')).toBe(false);
});
