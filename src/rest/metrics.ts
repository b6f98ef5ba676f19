/** Metrics for Prometheus: operations, bytes, durations, the memory budget, and the process itself. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Budget } from '../async/limit.ts';
import type { Operation } from '../manager/operations.ts';

export type Metrics = {
  /** Counts an operation that has ended. */
  observe(operation: Operation): void;
  readonly contentType: string;
  /** The text of a scrape. */
  text(): Promise<string>;
};

const byteKinds = ['done', 'read', 'sent', 'stored'] as const;

export function createMetrics(deps: {
  readonly memory: Budget;
  readonly operations: () => readonly Operation[];
}): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const ended = new Counter({
    name: 'cinder_delta_operations_total',
    help: 'Operations that have ended',
    labelNames: ['verb', 'state', 'mode'],
    registers,
  });
  const seconds = new Histogram({
    name: 'cinder_delta_operation_seconds',
    help: 'Seconds from the start of an operation to its end',
    labelNames: ['verb'],
    buckets: [0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400],
    registers,
  });
  const bytes = new Counter({
    name: 'cinder_delta_bytes_total',
    help: 'Bytes of operations that have ended: handled, read at the source, sent between service and agent, stored',
    labelNames: ['verb', 'kind'],
    registers,
  });
  const open = new Gauge({
    name: 'cinder_delta_operations_open',
    help: 'Operations that run or wait',
    labelNames: ['verb', 'state'],
    registers,
    collect() {
      this.reset();
      for (const { verb, state } of deps.operations()) {
        if (state === 'running' || state === 'queued') this.inc({ verb, state });
      }
    },
  });
  const memory = new Gauge({
    name: 'cinder_delta_buffer_bytes',
    help: 'Bytes of buffers of all operations: held now, the most ever, the ceiling',
    labelNames: ['kind'],
    registers,
    collect() {
      this.set({ kind: 'held' }, deps.memory.held);
      this.set({ kind: 'peak' }, deps.memory.peak);
      this.set({ kind: 'ceiling' }, deps.memory.capacity);
    },
  });
  open.reset();
  memory.reset();

  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    observe({ verb, state, mode, progress, startedAt, finishedAt }) {
      ended.inc({ verb, state, mode: mode ?? 'none' });
      for (const kind of byteKinds) bytes.inc({ verb, kind }, progress[`${kind}Bytes`]);
      if (startedAt !== null && finishedAt !== null) {
        seconds.observe({ verb }, (finishedAt.getTime() - startedAt.getTime()) / 1000);
      }
    },
  };
}
