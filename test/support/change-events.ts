/** What a change stream said, gathered for comparison with the truth. */
import { BackupError } from '../../src/model/errors.ts';
import { endOf, type TypedExtent } from '../../src/model/extent.ts';
import type { StreamPlan, StreamTotals } from '../../src/protocol/calls.ts';
import type { ChangeEvent } from '../../src/volume/block-source.ts';
import { blockDigests, type ScriptedVolume } from './fake-agent.ts';
import { patternBytes } from './random-volume.ts';

export type Gathered = {
  plans: StreamPlan[];
  totals: StreamTotals[];
  /** Ranges that touch are joined; digests count as data. */
  extents: TypedExtent[];
  /** All data bytes in the order they came. */
  data: Buffer;
  digests: Buffer;
};

/** With `blockSize` given, bytes are compared with their digests, as the sealer does; it throws `corrupt` then. */
export async function gather(events: AsyncIterable<ChangeEvent>, blockSize?: number): Promise<Gathered> {
  const gathered: Gathered = {
    plans: [],
    totals: [],
    extents: [],
    data: Buffer.alloc(0),
    digests: Buffer.alloc(0),
  };
  const data: Buffer[] = [];
  const digests: Buffer[] = [];
  for await (const event of events) {
    if (event.kind === 'plan') gathered.plans.push(event.plan);
    else if (event.kind === 'totals') gathered.totals.push(event.totals);
    else {
      if (event.kind === 'data') {
        if (blockSize !== undefined && !blockDigests(event.bytes, blockSize).equals(event.digests)) {
          throw new BackupError('corrupt', `bytes at ${event.offset} do not match their digests`);
        }
        data.push(Buffer.from(event.bytes));
      }
      if (event.kind !== 'zero') digests.push(Buffer.from(event.digests));
      append(gathered.extents, {
        kind: event.kind === 'zero' ? 'zero' : 'data',
        offset: event.offset,
        length: event.length,
      });
    }
  }
  return { ...gathered, data: Buffer.concat(data), digests: Buffer.concat(digests) };
}

function append(extents: TypedExtent[], next: TypedExtent): void {
  const last = extents.at(-1);
  if (last !== undefined && last.kind === next.kind && endOf(last) === next.offset) {
    extents[extents.length - 1] = { ...last, length: last.length + next.length };
  } else extents.push(next);
}

/** What an honest stream of these extents gathers to. */
export function truthOf(
  volume: ScriptedVolume,
  extents: readonly TypedExtent[] = volume.extents,
): Pick<Gathered, 'extents' | 'data' | 'digests'> {
  const joined: TypedExtent[] = [];
  const bytes: Buffer[] = [];
  const digests: Buffer[] = [];
  for (const extent of extents) {
    append(joined, extent);
    if (extent.kind === 'zero') continue;
    const piece = patternBytes(extent.offset, extent.length, volume.generation);
    bytes.push(piece);
    digests.push(blockDigests(piece, volume.blockSize));
  }
  return { extents: joined, data: Buffer.concat(bytes), digests: Buffer.concat(digests) };
}
