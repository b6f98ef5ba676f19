/** RBD threads that answer as a test says, and keep what they were asked. */
import type { RbdThreads } from '../../src/agent/rbd-connection.ts';
import type { ClusterSettings, RbdPool, RbdStep, RbdStepResult } from '../../src/agent/rbd-steps.ts';

export const rbdSettings: ClusterSettings = {
  clusterName: 'ceph',
  user: 'cinder',
  cephConf: '',
  pool: 'volumes',
  connectTimeoutS: 15,
  answerTimeoutS: 120,
  watchTimeoutS: 40,
};

export const rbdPool: RbdPool = { cluster: 1n, ioctx: 2n, fsid: 'f', poolId: '3' };

export type Asked = { readonly kind: RbdStep['kind']; readonly signal: AbortSignal };

export function scriptedRbd(answers: Partial<Record<RbdStep['kind'], Promise<RbdStepResult>>>) {
  const asked: Asked[] = [];
  const threads: RbdThreads = {
    threads: 4,
    pending: 0,
    run({ kind }, _transfer, signal) {
      asked.push({ kind, signal });
      return answers[kind] ?? Promise.resolve({ kind: 'done' });
    },
    warm() {},
    async close() {},
  };
  return { threads, asked };
}

/** The answer to a step that hangs. */
export const never = new Promise<never>(() => {});
