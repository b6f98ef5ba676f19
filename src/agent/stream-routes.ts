/** Calls that answer a stream of frames. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { isBackupError, messageOf } from '../model/errors.ts';
import {
  backendName,
  blocksRequest,
  deltaRequest,
  digestsRequest,
  volumeNameSchema,
} from '../protocol/calls.ts';
import { streamContentType } from '../protocol/frames.ts';
import type { AgentContext } from './app.ts';
import { sendFrames } from './frame-stream.ts';
import { errorResponses, frameStream } from './route-schemas.ts';
import {
  namedExtents,
  plannedBytes,
  requireIdentity,
  requireLength,
  requireStartOffset,
  wholeBlocks,
  type StreamShape,
} from './stream-request.ts';
import type { FoundRanges, VolumeBackend } from './volume-backend.ts';

type Stream = {
  readonly kind: 'streams' | 'block streams';
  readonly backend: VolumeBackend;
  readonly volume: string;
  readonly snapshot: string;
  readonly shape: StreamShape;
  readonly frames: 'blocks' | 'digests';
  readonly mergeGapBytes: number;
  readonly find: (signal: AbortSignal) => Promise<FoundRanges>;
};

export function streamRoutes(app: FastifyInstance, context: AgentContext): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const ofVolume = z.object({ backend: backendName, volume: volumeNameSchema });
  const response = { 200: frameStream, ...errorResponses };

  routes.post(
    '/v1/backends/:backend/volumes/:volume/delta',
    {
      schema: {
        summary: 'Stream what changed since the previous snapshot, or everything',
        params: ofVolume,
        body: deltaRequest,
        response,
      },
    },
    async ({ params, body }, reply) => {
      const backend = context.backendOf(params.backend);
      await serve(context, reply, {
        kind: 'streams',
        backend,
        volume: params.volume,
        snapshot: body.current_snapshot,
        shape: body,
        frames: 'blocks',
        mergeGapBytes: body.previous_snapshot === null ? 0 : body.merge_gap,
        find: (signal) =>
          backend.findRanges({
            volume: params.volume,
            previous: body.previous_snapshot,
            previousIdentity: body.previous_identity,
            current: body.current_snapshot,
            lengthBytes: body.length,
            blockSize: body.block_size,
            startOffset: body.start_offset,
            signal,
          }),
      });
    },
  );

  routes.post(
    '/v1/backends/:backend/volumes/:volume/digests',
    {
      schema: {
        summary: 'Stream the digests of all blocks of a snapshot',
        params: ofVolume,
        body: digestsRequest,
        response,
      },
    },
    async ({ params, body }, reply) => {
      const backend = context.backendOf(params.backend);
      await serve(context, reply, {
        kind: 'streams',
        backend,
        volume: params.volume,
        snapshot: body.snapshot,
        shape: body,
        frames: 'digests',
        mergeGapBytes: 0,
        find: (signal) =>
          backend.findRanges({
            volume: params.volume,
            previous: null,
            previousIdentity: null,
            current: body.snapshot,
            lengthBytes: body.length,
            blockSize: body.block_size,
            startOffset: body.start_offset,
            signal,
          }),
      });
    },
  );

  routes.post(
    '/v1/backends/:backend/volumes/:volume/blocks',
    {
      schema: {
        summary: 'Stream named ranges of a snapshot',
        params: ofVolume,
        body: blocksRequest,
        response,
      },
    },
    async ({ params, body }, reply) => {
      const extents = namedExtents(body, body.ranges);
      await serve(context, reply, {
        kind: 'block streams',
        backend: context.backendOf(params.backend),
        volume: params.volume,
        snapshot: body.snapshot,
        shape: body,
        frames: 'blocks',
        mergeGapBytes: 0,
        find: async () => ({
          method: 'named',
          reason: 'the client named the ranges',
          extents,
          readBytes: () => 0,
          close: async () => {},
        }),
      });
    },
  );
}

/** Errors before the first byte are thrown, to become a JSON answer; later ones end in the stream and the log. */
async function serve(context: AgentContext, reply: FastifyReply, stream: Stream): Promise<void> {
  const { log, readers, requests } = context;
  const { shape, snapshot, volume, mergeGapBytes } = stream;
  requireStartOffset(shape);
  const { controller, done } = requests.begin(stream.kind, reply);
  await using held = new AsyncDisposableStack();
  held.defer(done);
  const source = await stream.backend.openSnapshot(volume, snapshot);
  held.defer(() => source.close());
  requireIdentity(shape, snapshot, source.identity);
  requireLength(shape, snapshot, source.sizeBytes);
  const found = await stream.find(controller.signal);
  held.defer(() => found.close());
  await source.requireNamed();
  const { method, reason } = found;
  const extents = wholeBlocks(found.extents, shape, mergeGapBytes);
  const plan = { method, reason, ...plannedBytes(extents) };

  const pieces = readers.stream(
    {
      handle: source.handle,
      frames: stream.frames,
      blockSize: shape.block_size,
      extents,
    },
    controller.signal,
  );
  reply.hijack();
  reply.raw.writeHead(200, { 'content-type': streamContentType, 'cache-control': 'no-store' });
  const fields = { volume, snapshot, stream: stream.frames, method, reason };
  try {
    const totals = await sendFrames(
      {
        plan,
        lengthBytes: shape.length,
        startOffset: shape.start_offset,
        pieces: followedBy(pieces, () => source.requireWhole()),
        findingBytes: () => found.readBytes(),
      },
      reply.raw,
      controller,
      context.idleMs,
    );
    log.info({ ...fields, ...totals }, 'stream sent');
  } catch (error) {
    const cancelled = isBackupError(error, 'cancelled', 'agent-unavailable');
    if (cancelled) log.info({ ...fields, why: messageOf(error) }, 'stream ended early');
    else log.error({ ...fields, err: error }, 'stream failed');
  }
}

/** All of `pieces`, and an end only if `check` does not throw. */
async function* followedBy<T>(pieces: AsyncGenerator<T>, check: () => Promise<void>): AsyncGenerator<T> {
  yield* pieces;
  await check();
}
