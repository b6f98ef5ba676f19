/** Messages recorded from a real Cinder (Zed): test/fixtures/cinder/wire. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

const directory = fileURLToPath(new URL('../fixtures/cinder/wire/', import.meta.url));

const recorded = z.object({
  name: z.string(),
  exchange: z.string(),
  routing_keys: z.array(z.string()),
  properties: z.record(z.string(), z.unknown()),
  payload_raw: z.string(),
});

export type WireFixture = z.infer<typeof recorded>;

/** All recorded messages, in the order of their names. */
export function wireFixtures(): readonly WireFixture[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.json'))
    .toSorted()
    .map(readFixture);
}

/** The recorded message of that name. */
export function wireFixture(name: string): WireFixture {
  return readFixture(`${name}.json`);
}

/** What the broker listed for each setting of the options: `topology-variants.txt`. */
export function topologyVariants(): string {
  return readFileSync(`${directory}topology-variants.txt`, 'utf8');
}

function readFixture(file: string): WireFixture {
  return recorded.parse(JSON.parse(readFileSync(`${directory}${file}`, 'utf8')));
}
