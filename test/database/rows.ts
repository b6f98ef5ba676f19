/** Rows for tests of the database. */
import { randomUUID } from 'node:crypto';
import type { NewBackup } from '../../src/database/backups.ts';
import type { NewVolume } from '../../src/database/volumes.ts';

export function newBackup(changes: Partial<NewBackup>): NewBackup {
  return {
    id: randomUUID(),
    projectId: 'demo',
    userId: 'tester',
    volumeId: randomUUID(),
    snapshotId: null,
    parentId: null,
    name: null,
    description: null,
    host: 'host',
    availabilityZone: null,
    container: null,
    sizeGiB: 1,
    dataTimestamp: new Date('2026-11-22T09:00:00Z'),
    ...changes,
  };
}

export function newVolume(changes: Partial<NewVolume>): NewVolume {
  return {
    id: randomUUID(),
    projectId: 'demo',
    userId: 'tester',
    host: 'host@file#file',
    sizeGiB: 1,
    availabilityZone: 'nova',
    status: 'available',
    name: null,
    description: null,
    ...changes,
  };
}
