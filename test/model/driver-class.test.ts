import { expect, test } from 'vitest';
import { isOwnService } from '../../src/model/driver-class.ts';

const swift = 'cinder.backup.drivers.swift.SwiftBackupDriver';

test('the class of the driver, its module as older releases wrote it, and nothing are taken', () => {
  for (const service of [swift, 'cinder.backup.drivers.swift', '', null]) {
    expect(isOwnService(swift, service), String(service)).toBe(true);
  }
});

test('other drivers are not, whatever layout they share', () => {
  expect(isOwnService(swift, 'cinder.backup.drivers.s3.S3BackupDriver')).toBe(false);
  expect(isOwnService(swift, 'cinder.backup.drivers.swift.SwiftBackupDriver2')).toBe(false);
  const [posix, nfs] = [
    'cinder.backup.drivers.posix.PosixBackupDriver',
    'cinder.backup.drivers.nfs.NFSBackupDriver',
  ];
  expect([isOwnService(posix, nfs), isOwnService(nfs, posix)]).toEqual([false, false]);
});
