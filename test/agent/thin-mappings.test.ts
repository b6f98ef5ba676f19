import { expect, test } from 'vitest';
import type { FoundExtents } from '../../src/agent/range-checks.ts';
import { readDifferences, readMapped, type Lines } from '../../src/agent/thin-mappings.ts';

const block = 65_536;

/** As thin_delta 0.9.0 writes it. */
const differences = `<superblock uuid="" time="2" transaction="4" data_block_size="128" nr_data_blocks="0">
  <diff left="2" right="3">
    <same begin="0" length="10"/>
    <different begin="10" length="3"/>
    <same begin="13" length="7"/>
    <left_only begin="20" length="4"/>
    <same begin="24" length="40"/>
    <different begin="1000" length="1"/>
    <right_only begin="5000" length="1"/>
  </diff>
</superblock>
`;

/** As thin_dump 0.9.0 writes it. */
const mapped = `<superblock uuid="" time="2" transaction="4" flags="0" version="2" data_block_size="128" nr_data_blocks="0">
  <device dev_id="3" mapped_blocks="12" transaction="3" creation_time="2" snap_time="2">
    <range_mapping origin_begin="0" data_begin="7" length="10" time="0"/>
    <single_mapping origin_block="20" data_block="3" time="1"/>
    <single_mapping origin_block="5000" data_block="40" time="2"/>
  </device>
</superblock>
`;

async function* linesOf(text: string): AsyncGenerator<readonly string[]> {
  const lines = text.split('\n');
  for (let at = 0; at < lines.length; at += 3) yield lines.slice(at, at + 3);
}

async function all(found: FoundExtents) {
  const extents = [];
  for await (const some of found) extents.push(...some);
  return extents;
}

test('differences are data where the second device has blocks of its own, zeros where only the first has', async () => {
  expect(await all(readDifferences(linesOf(differences)))).toEqual([
    { kind: 'data', offset: 10 * block, length: 3 * block },
    { kind: 'zero', offset: 20 * block, length: 4 * block },
    { kind: 'data', offset: 1000 * block, length: block },
    { kind: 'data', offset: 5000 * block, length: block },
  ]);
});

test('mapped blocks are data', async () => {
  expect(await all(readMapped(linesOf(mapped)))).toEqual([
    { kind: 'data', offset: 0, length: 10 * block },
    { kind: 'data', offset: 20 * block, length: block },
    { kind: 'data', offset: 5000 * block, length: block },
  ]);
});

test('a device without blocks, and two that are the same, name nothing', async () => {
  const empty = mapped.split('\n').filter((line) => !line.includes('_mapping'));
  expect(await all(readMapped(linesOf(empty.join('\n'))))).toEqual([]);
  const same = differences.split('\n').filter((line) => !/different|only/.test(line));
  expect(await all(readDifferences(linesOf(same.join('\n'))))).toEqual([]);
});

const readers: readonly (readonly [string, string, (lines: Lines) => FoundExtents])[] = [
  ['thin_delta', differences, readDifferences],
  ['thin_dump', mapped, readMapped],
];

test.each(readers)('output of %s that ends early is an error, wherever it ends', async (tool, text, read) => {
  const whole = text.trimEnd().length;
  for (let end = 0; end < whole; end += 1) {
    const message = expect.stringContaining(tool);
    await expect(all(read(linesOf(text.slice(0, end))))).rejects.toMatchObject({
      code: 'agent-failed',
      message,
    });
  }
});

test.each(readers)('a line of %s that is not known is an error', async (_, text, read) => {
  const lines = text.trimEnd().split('\n');
  const strange = [
    '<ref name="1"/>',
    '<different begin="-1" length="3"/>',
    '<single_mapping origin_block="x" data_block="3" time="1"/>',
    '<right_only begin="99999999999999999999" length="1"/>',
    'thin_delta: warning',
    lines[2] ?? '',
  ];
  for (const line of strange) {
    const broken = [...lines.slice(0, -2), line, ...lines.slice(-2)].join('\n');
    // A range that was told already is out of order.
    await expect(all(read(linesOf(broken)))).rejects.toMatchObject({ code: 'agent-failed' });
  }
  await expect(all(read(linesOf(`${text}${text}`)))).rejects.toMatchObject({ code: 'agent-failed' });
});
