/**
 * What we add to a `_metadata` document under `cinder_delta`; Python ignores the key. A record of another version, or one
 * that is not of this shape, counts as absent: the next backup then compares or is full.
 */
import { z } from 'zod';
import type { DeltaRecord } from './metadata-document.ts';

const recordVersion = 1;

const bytes = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const text = z.string().min(1).max(1024);
const maxReasonChars = 4096;

const recordSchema = z.object({
  version: z.literal(recordVersion),
  mode: z.enum(['delta', 'compare', 'full']),
  reason: z.string().max(maxReasonChars),
  length_bytes: bytes.min(1),
  block_size: bytes.min(1),
  base: z
    .object({
      backend: text,
      volume_name: text,
      volume_identity: text,
      snapshot_name: text,
      snapshot_identity: text,
    })
    .nullable(),
  read_bytes: bytes,
  stored_bytes: bytes,
});

/** The JSON value of `cinder_delta`; a reason that is too long to be read back is cut. */
export function encodeDeltaRecord(record: DeltaRecord): z.infer<typeof recordSchema> {
  const { base } = record;
  return {
    version: recordVersion,
    mode: record.mode,
    reason: record.reason.slice(0, maxReasonChars),
    length_bytes: record.lengthBytes,
    block_size: record.blockSize,
    base: base && {
      backend: base.backend,
      volume_name: base.volumeName,
      volume_identity: base.volumeIdentity,
      snapshot_name: base.snapshotName,
      snapshot_identity: base.snapshotIdentity,
    },
    read_bytes: record.readBytes,
    stored_bytes: record.storedBytes,
  };
}

/** The record of a JSON value, or null if it is not one that this version wrote. */
export function decodeDeltaRecord(value: unknown): DeltaRecord | null {
  const parsed = recordSchema.safeParse(value);
  if (!parsed.success) return null;
  const { data } = parsed;
  return {
    mode: data.mode,
    reason: data.reason,
    lengthBytes: data.length_bytes,
    blockSize: data.block_size,
    base: data.base && {
      backend: data.base.backend,
      volumeName: data.base.volume_name,
      volumeIdentity: data.base.volume_identity,
      snapshotName: data.base.snapshot_name,
      snapshotIdentity: data.base.snapshot_identity,
    },
    readBytes: data.read_bytes,
    storedBytes: data.stored_bytes,
  };
}
