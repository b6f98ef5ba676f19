/** Volume metadata beside Cinder's own BackupMetadataAPI: what it writes, and what it makes of random chains. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import type { Database } from '../../../src/database/database.ts';
import { openSqliteDatabase } from '../../../src/database/sqlite/sqlite-database.ts';
import { replaceGlanceMetadata } from '../../../src/database/volume-glance-metadata.ts';
import { setVolumeMetadata } from '../../../src/database/volume-metadata.ts';
import { getVolume } from '../../../src/database/volumes.ts';
import { planRestoredMeta, readVolumeMeta } from '../../../src/manager/volume-meta.ts';
import { BackupError } from '../../../src/model/errors.ts';
import { startPythonPeer, type PythonPeer } from '../../support/python-peer.ts';
import { comparisonSeeds } from '../../support/random-volume.ts';

const now = new Date('2026-11-22T10:00:00Z');
const types = ['11111111-0000-4000-8000-000000000001', '22222222-0000-4000-8000-000000000002'];
const goneType = '33333333-0000-4000-8000-000000000003';

let directory: string;
let peer: PythonPeer;
let database: Database;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-meta-'));
  peer = startPythonPeer(
    fileURLToPath(new URL('metadata_peer.py', import.meta.url)),
    JSON.stringify({ directory }),
  );
  database = openSqliteDatabase(':memory:');
  for (const id of types) {
    await database.sql.insertInto('volume_types').values({ id, name: id, deleted: false }).execute();
  }
});

afterAll(async () => {
  await database.close();
  await peer.close();
  await rm(directory, { recursive: true });
});

async function ask(request: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
  const answer = z.record(z.string(), z.unknown()).parse(await peer.ask({ types, ...request }));
  if (answer['crash'] !== undefined) throw new Error(z.string().parse(answer['crash']));
  return answer;
}

type Row = {
  readonly id: string;
  readonly display_name: string | null;
  readonly display_description: string | null;
  readonly encryption_key_id: string | null;
  readonly volume_type_id: string | null;
  readonly bootable: boolean;
};

/** A time without zone, as a database that keeps milliseconds has it. */
function utc(value: string): Date {
  return new Date(`${value.slice(0, 23)}Z`);
}

const plainRow: Row = {
  id: '',
  display_name: null,
  display_description: null,
  encryption_key_id: null,
  volume_type_id: null,
  bootable: false,
};

test.each([1, 2])(
  'version %i of a volume with everything is the text that Cinder writes',
  async (version) => {
    const volume = {
      ...plainRow,
      id: randomUUID(),
      created_at: '2026-11-22T09:12:14',
      updated_at: '2026-11-22T09:12:16.123456',
      launched_at: '2026-11-22T09:12:15',
      deleted: false,
      user_id: 'u',
      project_id: 'p',
      host: 'refhost@ceph#ceph',
      size: 7,
      availability_zone: 'nova',
      status: 'backing-up',
      previous_status: 'in-use',
      attach_status: 'attached',
      display_name: 'näme "quoted" \\ ✓ 🦊',
      display_description: 'a\tb\nc\u007f',
      volume_type_id: types[0] ?? '',
      encryption_key_id: '44444444-0000-4000-8000-000000000004',
      bootable: true,
      multiattach: false,
      use_quota: true,
      shared_targets: false,
    };
    const metadata = { purpose: 'test', 'key with "': 'é' };
    const glance = { image_id: 'i', image_name: 'jammy ✓', min_disk: '0' };
    const { text } = await ask({ op: 'get', version, volume, metadata, glance });

    await database.sql
      .insertInto('volumes')
      .values({
        ...volume,
        created_at: utc(volume.created_at),
        updated_at: utc(volume.updated_at),
        launched_at: utc(volume.launched_at),
      })
      .execute();
    await setVolumeMetadata(database.sql, volume.id, metadata, now);
    await replaceGlanceMetadata(database.sql, volume.id, glance, now);
    await database.sql
      .updateTable('volumes')
      .set({ updated_at: utc(volume.updated_at) })
      .where('id', '=', volume.id)
      .execute();
    const written = await readVolumeMeta({ database, options: { metadataVersion: version } }, volume.id);
    // Ours keep milliseconds; MySQL keeps neither in Cinder's columns.
    expect(written.replace('09:12:16.123000', '09:12:16.123456')).toBe(text);
  },
);

const name = fc.constantFrom(null, '', 'mine', 'restore_backup_1', 'näme');
const typeId = fc.constantFrom(null, ...types, goneType);
const keyId = fc.constantFrom(null, null, 'key a', 'key b');
const texts = fc.dictionary(fc.constantFrom('a', 'b', 'ключ'), fc.constantFrom('', '1', 'zwei'), {
  maxKeys: 3,
});

const row = fc.record({
  display_name: name,
  display_description: name,
  encryption_key_id: keyId,
  volume_type_id: fc.constantFrom(null, ...types),
  bootable: fc.boolean(),
});

const document = fc.record(
  {
    version: fc.constantFrom(1, 2, 2, 2),
    'volume-base-metadata': fc.record({
      display_name: name,
      display_description: name,
      encryption_key_id: keyId,
      volume_type_id: typeId,
      size: fc.constant(1),
    }),
    'volume-metadata': texts,
    'volume-glance-metadata': texts,
  },
  { requiredKeys: ['version'] },
);

/** What the volume would look like after our restore; the same words as the peer's. */
async function ours(before: Row, metadata: object, glance: object, documents: readonly unknown[]) {
  const layers = documents.map((one, index) => ({ backupId: `b${index}`, volumeMeta: JSON.stringify(one) }));
  try {
    const plan = await planRestoredMeta(database.sql, layers, await getVolume(database.sql, before.id));
    return {
      name: plan.base.name ?? before.display_name,
      description: plan.base.description === undefined ? before.display_description : plan.base.description,
      key: plan.encryptionKeyId === undefined ? before.encryption_key_id : plan.encryptionKeyId,
      type: plan.base.volumeTypeId ?? before.volume_type_id,
      bootable: before.bootable || plan.glance !== undefined,
      metadata: plan.user ?? metadata,
      glance: plan.glance ?? glance,
    };
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    return { refused: error.code === 'version-unsupported' ? 'version' : error.message };
  }
}

test.each(comparisonSeeds())(
  'random chains make of random volumes what Cinder makes of them (seed %i)',
  async (seed) => {
    const chains = fc.array(document, { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(row, texts, texts, chains, async (values, metadata, glance, documents) => {
        const before = { ...values, id: randomUUID() };
        await database.sql
          .insertInto('volumes')
          .values({ ...before, deleted: false })
          .execute();
        const volume = { ...before, deleted: false };
        const request = {
          op: 'put',
          volume,
          metadata,
          glance,
          texts: documents.map((one) => JSON.stringify(one)),
        };
        expect(await ours(before, metadata, glance, documents)).toEqual(await ask(request));
      }),
      { seed, numRuns: 120 },
    );
  },
);
