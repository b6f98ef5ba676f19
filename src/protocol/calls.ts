/**
 * What service and agent say to each other in JSON: requests, answers, and the JSON payloads of stream
 * frames. Field names are those of the wire. See openapi/agent.yaml.
 */
import { z } from 'zod';
import {
  isPowerOfTwo,
  largestBlockBytes,
  largestMergeGapBytes,
  leastBlockBytes,
} from '../model/block-size.ts';
import { backendNamePattern, snapshotNamePattern, volumeNamePattern } from '../model/names.ts';

const bytes = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const identity = z.string().min(1).max(256);

export const backendName = z.string().regex(backendNamePattern, 'must be a backend name');
export const volumeNameSchema = z.string().regex(volumeNamePattern, 'must be volume-<uuid>');
export const snapshotNameSchema = z
  .string()
  .regex(snapshotNamePattern, 'must be snapshot-<uuid> or backup.<uuid>.snap.<unix time>');

export const blockSizeSchema = z
  .number()
  .int()
  .min(leastBlockBytes)
  .max(largestBlockBytes)
  .refine(isPowerOfTwo, 'must be a power of two');

export const backendInfo = z
  .object({
    name: backendName,
    type: z.string().describe('file, rbd, lvm-thin, qcow2'),
    /** How changed ranges are found: from allocation maps, by reading both snapshots, or not at all. */
    delta: z.enum(['extents', 'bytes', 'none']),
    restore: z.boolean(),
    create_volume: z.boolean(),
  })
  .meta({ id: 'Backend' });

export const snapshotInfo = z
  .object({
    name: z.string(),
    size_bytes: bytes,
    identity: identity.describe('differs whenever a snapshot of this name is made anew'),
    created_at: z.string(),
  })
  .meta({ id: 'Snapshot' });

export const volumeInfo = z
  .object({
    name: z.string(),
    size_bytes: bytes,
    identity: identity.describe('differs whenever a volume of this name is made anew'),
    allocated_bytes: bytes.nullable(),
  })
  .meta({ id: 'Volume' });

export const volumeDetail = volumeInfo
  .extend({ snapshots: z.array(snapshotInfo) })
  .meta({ id: 'VolumeDetail' });

/** The answers of `GET /v1/backends`, `GET /v1/backends/{b}/volumes` and `GET /v1/backends/{b}/volumes/{v}/snapshots`. */
export const backendList = z.object({ backends: z.array(backendInfo) }).meta({ id: 'BackendList' });
export const volumeList = z
  .object({
    volumes: z.array(volumeInfo),
    gone: z.array(z.string()).describe('names of volumes that are no more, but have snapshots left'),
  })
  .meta({ id: 'VolumeList' });
export const snapshotList = z.object({ snapshots: z.array(snapshotInfo) }).meta({ id: 'SnapshotList' });

export const createVolumeRequest = z.strictObject({ name: volumeNameSchema, size_bytes: bytes.min(1) });
export const resizeVolumeRequest = z.strictObject({ size_bytes: bytes.min(1) });
export const createSnapshotRequest = z.strictObject({ name: snapshotNameSchema });

const streamRequest = {
  length: bytes.min(1).describe('bytes of the current snapshot to look at: its whole size'),
  block_size: blockSizeSchema,
  start_offset: bytes.default(0).describe('go on here: a block boundary'),
  current_identity: identity
    .nullish()
    .transform((value) => value ?? null)
    .describe('refuse unless the snapshot to be read is this one'),
};

export const deltaRequest = z
  .strictObject({
    ...streamRequest,
    previous_snapshot: snapshotNameSchema.nullable(),
    previous_identity: identity
      .nullish()
      .transform((value) => value ?? null)
      .describe('refuse unless the previous snapshot is this one'),
    current_snapshot: snapshotNameSchema,
    merge_gap: bytes
      .max(largestMergeGapBytes)
      .default(0)
      .describe('also send unchanged gaps of at most so many bytes between two changed ranges'),
  })
  .meta({ id: 'DeltaRequest' });

export const digestsRequest = z
  .strictObject({ ...streamRequest, snapshot: snapshotNameSchema })
  .meta({ id: 'DigestsRequest' });

/** Ranges of one `blocks` call at most. */
export const maxBlockRanges = 4096;

export const blocksRequest = z
  .strictObject({
    ...streamRequest,
    snapshot: snapshotNameSchema,
    ranges: z
      .array(z.tuple([bytes, bytes.min(1)]))
      .min(1)
      .max(maxBlockRanges)
      .describe('[offset, length], sorted, not overlapping, on block boundaries'),
  })
  .meta({ id: 'BlocksRequest' });

/** How the ranges of a stream were found. */
export const findingMethod = z.enum(['extents', 'bytes', 'allocation', 'named', 'all']);

/** The first frame: what the stream is going to hold, as far as that is known. */
export const streamPlan = z.object({
  method: findingMethod,
  reason: z.string().describe('why this method: a sentence for the log'),
  /** Bytes of data and zero frames to come from `start_offset` on; null where only reading tells. */
  data_bytes: bytes.nullable(),
  zero_bytes: bytes.nullable(),
});

/**
 * The last frame: what the stream held. `data_bytes` and `zero_bytes` count the bytes of the volume that data (or
 * digests) and zero frames were about, `digests` those of data and digests frames alike. `read_bytes` counts
 * what was read from storage to find and to send it.
 */
export const streamTotals = z.object({
  data_bytes: bytes,
  zero_bytes: bytes,
  digests: bytes,
  read_bytes: bytes,
});

export const streamError = z.object({ code: z.string(), message: z.string() });

/** The answer of `PUT .../data`, given after the bytes are flushed to stable storage. */
export const writeTotals = z.object({ data_bytes: bytes, zero_bytes: bytes }).meta({ id: 'WriteTotals' });

export const errorAnswer = z
  .object({ error: z.object({ code: z.string(), message: z.string() }) })
  .meta({ id: 'Error' });

export type BackendInfo = z.infer<typeof backendInfo>;
export type SnapshotInfo = z.infer<typeof snapshotInfo>;
export type VolumeInfo = z.infer<typeof volumeInfo>;
export type VolumeList = z.infer<typeof volumeList>;
export type VolumeDetail = z.infer<typeof volumeDetail>;
export type DeltaRequest = z.infer<typeof deltaRequest>;
export type DigestsRequest = z.infer<typeof digestsRequest>;
export type BlocksRequest = z.infer<typeof blocksRequest>;
export type StreamPlan = z.infer<typeof streamPlan>;
export type StreamTotals = z.infer<typeof streamTotals>;
export type WriteTotals = z.infer<typeof writeTotals>;
