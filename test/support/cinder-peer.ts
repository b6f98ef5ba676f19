/**
 * Cinder's own backup drivers as a peer: one Python process (test/interop/cinder_peer.py) that performs one
 * operation after the other. Ends when it is disposed of.
 */
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { startPythonPeer } from './python-peer.ts';

/** A row of `backups`: what Cinder's driver looks at. Other columns pass through. */
export type PeerRow = {
  readonly id: string;
  readonly volume_id: string;
  readonly parent_id: string | null;
  readonly container: string | null;
  readonly service_metadata: string | null;
  readonly size: number;
  readonly created_at: string;
  readonly display_name: string | null;
  readonly display_description: string | null;
  readonly object_count: number;
  readonly status?: string;
};

/** Options of [DEFAULT]; those of other drivers than the request's are refused. */
export type PeerOptions = Readonly<Record<`backup_${string}`, string | number | boolean>>;

export type PeerDriver = 'posix' | 'swift' | 's3';

export type PeerRequest = {
  readonly op: 'backup' | 'restore' | 'delete';
  /** `posix` unless given. */
  readonly driver?: PeerDriver;
  readonly options: PeerOptions;
  /** The row that is meant and all its ancestors, in any order. */
  readonly rows: readonly PeerRow[];
  readonly backup_id: string;
  readonly volume_file?: string;
  /** What cinder-backup passes since RPC 2.4; drivers before 2023.1 do not know it. */
  readonly volume_is_new?: boolean;
};

const answerSchema = z.object({
  row: z.looseObject({
    id: z.string(),
    container: z.string().nullable(),
    service_metadata: z.string().nullable(),
    object_count: z.number(),
    status: z.string(),
    service: z.string().nullish(),
  }),
  seconds: z.number(),
  bytes: z.number(),
  stored_bytes: z.number(),
  max_rss_bytes: z.number(),
  driver: z.string(),
});
const failureSchema = z.object({ error: z.string(), type: z.string() });

export type PeerAnswer = z.infer<typeof answerSchema>;

/** An error of the driver: `type` is Cinder's exception class. */
export class PeerError extends Error {
  readonly type: string;

  constructor(type: string, message: string) {
    super(`${type}: ${message}`);
    this.type = type;
  }
}

export type CinderPeer = AsyncDisposable & {
  /** Performs one operation; throws PeerError with the driver's exception. Calls wait for each other. */
  perform(request: PeerRequest): Promise<PeerAnswer>;
};

/** Starts the process: about two seconds until it answers. */
export function startCinderPeer(): CinderPeer {
  const peer = startPythonPeer(fileURLToPath(new URL('../interop/cinder_peer.py', import.meta.url)));
  let turn: Promise<unknown> = Promise.resolve();

  async function ask(request: PeerRequest): Promise<PeerAnswer> {
    const answer = await peer.ask(request);
    const failure = failureSchema.safeParse(answer);
    if (failure.success) throw new PeerError(failure.data.type, failure.data.error);
    return answerSchema.parse(answer);
  }

  return {
    perform(request) {
      const answer = turn.then(() => ask(request));
      turn = answer.catch(() => undefined);
      return answer;
    },
    async [Symbol.asyncDispose]() {
      await peer.close();
    },
  };
}
