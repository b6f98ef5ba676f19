/** Operations on the wire: ours, not Cinder's. */
import { z } from 'zod';

const bytes = z.number().int();

const verified = {
  checked_bytes: bytes,
  bad_count: z.number().int().describe('bad ranges in all'),
  bad_bytes: bytes.describe('at most so many bytes of the volume are bad'),
};

const summary = {
  id: z.string(),
  verb: z.enum(['create', 'restore', 'delete', 'verify']),
  project_id: z.string(),
  backup_id: z.string(),
  volume_id: z.string(),
  state: z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']),
  mode: z.enum(['delta', 'compare', 'full']).nullable().describe('how a create finds its bytes'),
  reason: z.string().nullable().describe('why that mode'),
  progress: z.object({
    planned_bytes: bytes.nullable().describe('volume bytes to handle; null while unknown'),
    done_bytes: bytes,
    read_bytes: bytes.describe('read at the source: the volume of a create, the store of a restore'),
    sent_bytes: bytes.describe('volume bytes between service and agent'),
    stored_bytes: bytes.describe('put into the store, compressed'),
  }),
  rate_bytes_per_second: z.number().nullable(),
  seconds_left: z.number().nullable(),
  queued_at: z.string(),
  started_at: z.string().nullable(),
  finished_at: z.string().nullable(),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
};

/** An operation in a list. */
export const operationSummary = z
  .object({ ...summary, result: z.object(verified).nullable().describe('of a verify') })
  .meta({ id: 'OperationSummary' });

export const operationView = z
  .object({
    ...summary,
    result: z
      .object({
        ...verified,
        bad_ranges: z
          .array(
            z.object({
              offset: bytes,
              length: bytes,
              backup_id: z.string(),
              object: z.string(),
              reason: z.string(),
            }),
          )
          .describe('the first thousand; those of the last twenty verifies that found any are kept'),
      })
      .nullable()
      .describe('of a verify'),
  })
  .meta({ id: 'Operation' });

export const operationAnswer = z.object({ operation: operationView });
export const operationsAnswer = z.object({ operations: z.array(operationSummary) });
