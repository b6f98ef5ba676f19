/** The real agent on loopback over a directory of its own, and a client that keeps every frame. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request, type Dispatcher } from 'undici';
import type { AgentAccess } from '../../src/agent/access.ts';
import { createAgentApp } from '../../src/agent/app.ts';
import { createFileBackend } from '../../src/agent/file-backend.ts';
import { createReaderPool, type ReaderPool } from '../../src/agent/reader-pool.ts';
import type { VolumeBackend } from '../../src/agent/volume-backend.ts';
import { createLogger } from '../../src/log.ts';
import { backupSnapshotName, volumeName } from '../../src/model/names.ts';
import { createFrameDecoder, type Frame } from '../../src/protocol/frames.ts';
import { makeVolumeFile } from './random-volume.ts';

export type RunningAgent = {
  readonly url: string;
  readonly directory: string;
  readonly backend: VolumeBackend;
  readonly readers: ReaderPool;
  readonly token: string | undefined;
  close(): Promise<void>;
};

/** `wrap` puts something between the application and the file backend. */
export async function startAgent(
  options: {
    readonly access?: AgentAccess;
    readonly wrap?: (backend: VolumeBackend) => VolumeBackend;
    readonly idleMs?: number;
    readonly maxStreams?: number;
    readonly maxSnapshots?: number;
    readonly lingerMs?: number;
    readonly host?: string;
    readonly directory?: string;
  } = {},
): Promise<RunningAgent> {
  const log = createLogger({ level: 'silent' });
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'cinder-delta-agent-')));
  const backend = await createFileBackend({ name: 'files', directory, log });
  const readers = createReaderPool({ threads: 2 });
  const access = options.access ?? {};
  const { host = '127.0.0.1', idleMs, lingerMs, maxSnapshots, maxStreams } = options;
  const backends = [options.wrap?.(backend) ?? backend];
  const app = createAgentApp({ backends, access, log, readers, idleMs, lingerMs, maxStreams, maxSnapshots });
  const url = await app.listen({ host, port: 0 });
  return {
    url,
    directory,
    backend,
    readers,
    token: access.token,
    async close() {
      await app.close();
      await readers.close();
      await backend.close();
      if (options.directory === undefined) await rm(directory, { recursive: true });
    },
  };
}

export function volumesPath(volume?: string): string {
  const path = '/v1/backends/files/volumes';
  return volume === undefined ? path : `${path}/${volume}`;
}

export function freshVolumeName(): string {
  return volumeName(randomUUID());
}

/** A volume file with the bytes of generation 1 in `extents`, or in all of it. */
export async function volumeOf(
  agent: RunningAgent,
  sizeBytes: number,
  extents?: { offset: number; length: number }[],
): Promise<string> {
  const volume = freshVolumeName();
  const path = join(agent.directory, volume);
  await makeVolumeFile(path, extents === undefined ? { sizeBytes } : { sizeBytes, extents });
  return volume;
}

export async function snapshotOf(agent: RunningAgent, volume: string): Promise<string> {
  const name = backupSnapshotName(randomUUID(), 1);
  await agent.backend.createSnapshot(volume, name, new AbortController().signal);
  return name;
}

export type Answer = { readonly status: number; readonly body: unknown };

function headersOf(agent: RunningAgent, contentType?: string): Record<string, string> {
  const type: Record<string, string> = contentType === undefined ? {} : { 'content-type': contentType };
  return agent.token === undefined ? type : { ...type, authorization: `Bearer ${agent.token}` };
}

/** One JSON call. A `string` body is sent as it stands. */
export async function call(
  agent: RunningAgent,
  method: Dispatcher.HttpMethod,
  path: string,
  body?: unknown,
  contentType = 'application/json',
): Promise<Answer> {
  const answer = await request(agent.url + path, {
    method,
    headers: body === undefined ? headersOf(agent) : headersOf(agent, contentType),
    body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
  });
  const text = await answer.body.text();
  return { status: answer.statusCode, body: text === '' ? undefined : JSON.parse(text) };
}

/** The code of an error answer. */
export function codeOf({ body }: Answer): unknown {
  return (body as { error?: { code?: unknown } } | undefined)?.error?.code;
}

export type KeptFrame = Pick<Frame, 'type' | 'offset' | 'length'> & {
  readonly digests: Buffer;
  readonly data: Buffer;
};

export type KeptStream = {
  readonly frames: readonly KeptFrame[];
  readonly plan: Record<string, unknown>;
  /** The totals, or undefined if the stream ended without. */
  readonly totals: Record<string, unknown> | undefined;
  readonly error: Record<string, unknown> | undefined;
};

/** A stream call that must begin; all its frames. */
export async function stream(
  agent: RunningAgent,
  volume: string,
  kind: 'delta' | 'digests' | 'blocks',
  body: unknown,
): Promise<KeptStream> {
  const answer = await request(`${agent.url}${volumesPath(volume)}/${kind}`, {
    method: 'POST',
    headers: headersOf(agent, 'application/json'),
    body: JSON.stringify(body),
  });
  if (answer.statusCode !== 200) throw new Error(`${answer.statusCode}: ${await answer.body.text()}`);
  const decoder = createFrameDecoder();
  const frames: KeptFrame[] = [];
  for await (const piece of answer.body as AsyncIterable<Buffer>) {
    for (const { type, offset, length, digests, data } of decoder.push(piece)) {
      frames.push({ type, offset, length, digests: Buffer.from(digests), data: Buffer.from(data) });
    }
  }
  const documentOf = (wanted: Frame['type']): Record<string, unknown> | undefined => {
    const frame = frames.find(({ type }) => type === wanted);
    return frame === undefined ? undefined : (JSON.parse(frame.data.toString()) as Record<string, unknown>);
  };
  return { frames, plan: documentOf('plan') ?? {}, totals: documentOf('totals'), error: documentOf('error') };
}

/** How many descriptors this process has open below `directory`, beside the lock of the backend. */
export async function openFilesBelow(directory: string): Promise<number> {
  let count = 0;
  for (const fd of await readdir('/proc/self/fd')) {
    const target = await readlink(`/proc/self/fd/${fd}`).catch(() => '');
    if (target.startsWith(directory) && !target.endsWith('/.lock')) count += 1;
  }
  return count;
}
