/** A guest on RBD images, and what Cinder does to them: see rbd_guest.py. An image that it has used stays open until `leave`. */
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { CephCluster } from './ceph-cluster.ts';
import { startPythonPeer } from './python-peer.ts';

type Request =
  | {
      readonly do: 'write';
      readonly name: string;
      readonly offset: number;
      readonly length: number;
      readonly generation: number;
    }
  | {
      readonly do: 'discard' | 'zero';
      readonly name: string;
      readonly offset: number;
      readonly length: number;
    }
  | { readonly do: 'resize'; readonly name: string; readonly size: number }
  | { readonly do: 'snapshot'; readonly name: string; readonly snapshot: string; readonly protect?: boolean }
  | { readonly do: 'rollback'; readonly name: string; readonly snapshot: string }
  | {
      readonly do: 'clone';
      readonly parent: string;
      readonly snapshot: string;
      readonly name: string;
      readonly features: number;
    }
  | { readonly do: 'rename'; readonly name: string; readonly to: string }
  | { readonly do: 'flatten' | 'remove' | 'watchers' | 'leave'; readonly name: string };

/** rbd/features.h, as `imageFeatures` of rbd-volumes.ts names them. */
export const featureBits = { mapped: 1 | 4 | 8 | 16 | 32, plain: 1 } as const;

const answers = z.union([z.object({ result: z.unknown() }), z.object({ error: z.string() })]);

export type RbdGuest = AsyncDisposable & {
  /** Returns what it answers; throws what librbd says. One at a time. */
  ask(request: Request): Promise<unknown>;
};

export function startRbdGuest(cluster: CephCluster, pool = 'volumes'): RbdGuest {
  const peer = startPythonPeer(fileURLToPath(new URL('rbd_guest.py', import.meta.url)), cluster.conf, pool);
  return {
    async ask(request) {
      const answer = answers.parse(await peer.ask(request));
      if ('error' in answer) throw new Error(`${request.do}: ${answer.error}`);
      return answer.result;
    },
    async [Symbol.asyncDispose]() {
      await peer.close();
    },
  };
}
