/** What `lvs --reportformat json` says of the logical volumes of a group (lvmreport(7)), in values. */
import { z } from 'zod';
import { BackupError } from '../model/errors.ts';

export type LogicalVolume = {
  readonly name: string;
  /** Differs from that of every other one ever made. */
  readonly uuid: string;
  readonly groupUuid: string;
  readonly sizeBytes: number;
  readonly segmentType: string;
  /** The pool of a thin one. */
  readonly pool: string | null;
  /** Its number inside of the pool; null if it is not thin. */
  readonly thinId: number | null;
  /** What it is a snapshot of, as long as that exists. */
  readonly origin: string | null;
  readonly tags: readonly string[];
  readonly createdAtMs: number;
  /** Bytes of the blocks of a pool, else 0. */
  readonly chunkBytes: number;
  /** True for a pool that zeroes blocks before it gives them out. */
  readonly zeroes: boolean;
  /** Below /dev/mapper: there if it is active. */
  readonly path: string;
};

const columns = [
  'lv_name',
  'lv_uuid',
  'vg_uuid',
  'lv_size',
  'segtype',
  'pool_lv',
  'thin_id',
  'origin',
  'lv_tags',
  'lv_time',
  'chunk_size',
  'zero',
  'lv_dm_path',
];

/** None of these columns asks the kernel: a group of thousands is told in a moment. */
export const listArguments: readonly string[] = [
  '--reportformat',
  'json',
  '--units',
  'b',
  '--nosuffix',
  '--config',
  'report { time_format="%s" }',
  '-o',
  columns.join(','),
];

const whole = z
  .string()
  .regex(/^\d{1,15}$/)
  .transform(Number);
const orNull = z.string().transform((text) => (text === '' ? null : text));

const listed = z
  .object({
    lv_name: z.string().min(1),
    lv_uuid: z.string().min(1),
    vg_uuid: z.string().min(1),
    lv_size: whole,
    segtype: z.string(),
    pool_lv: orNull,
    thin_id: orNull.pipe(whole.nullable()),
    origin: orNull,
    lv_tags: z.string(),
    // Empty where the metadata have no time.
    lv_time: orNull.pipe(whole.nullable()),
    chunk_size: whole,
    zero: z.string(),
    lv_dm_path: z.string().startsWith('/dev/mapper/'),
  })
  .transform((row): LogicalVolume => ({
    name: row.lv_name,
    uuid: row.lv_uuid,
    groupUuid: row.vg_uuid,
    sizeBytes: row.lv_size,
    segmentType: row.segtype,
    pool: row.pool_lv,
    thinId: row.thin_id,
    origin: row.origin,
    tags: row.lv_tags === '' ? [] : row.lv_tags.split(','),
    createdAtMs: (row.lv_time ?? 0) * 1000,
    chunkBytes: row.chunk_size,
    zeroes: row.zero === 'zero' || row.zero === '1',
    path: row.lv_dm_path,
  }));

/** A volume of several segments has a row for each: the first one stands for it. Throws `agent-failed`. */
export function parseList(json: string): readonly LogicalVolume[] {
  const byName = new Map<string, LogicalVolume>();
  for (const volume of rowsOf(json)) if (!byName.has(volume.name)) byName.set(volume.name, volume);
  return [...byName.values()];
}

function rowsOf(json: string): readonly LogicalVolume[] {
  const schema = z.object({ report: z.array(z.object({ lv: z.array(listed) })) });
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw unreadable(cause);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data.report.flatMap(({ lv }) => lv);
  throw unreadable(parsed.error);
}

function unreadable(cause: unknown): BackupError {
  return new BackupError(
    'agent-failed',
    'lvs of this host answers in a form that is not known: see the log',
    {
      cause,
    },
  );
}
