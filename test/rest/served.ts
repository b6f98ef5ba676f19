/** The REST application over a rig: real agent, real files, no socket. */
import { createRestApp } from '../../src/rest/app.ts';
import { createMetrics } from '../../src/rest/metrics.ts';
import type { RestApp } from '../../src/rest/routes.ts';
import { createRig, type Machine, type Rig } from '../manager/rig.ts';

export type Served = {
  readonly rig: Rig;
  readonly app: RestApp;
  /** Sends a request and parses its answer. */
  ask(method: 'GET' | 'POST' | 'DELETE', url: string, body?: unknown): Promise<Answer>;
  /** Waits until no operation runs and no volume or snapshot is being worked on. */
  settle(): Promise<void>;
  close(): Promise<void>;
};

export type Answer = {
  readonly status: number;
  // oxlint-disable-next-line typescript/no-explicit-any -- whatever the service answers: the tests look into it
  readonly body: any;
  readonly headers: Readonly<Record<string, unknown>>;
};

export function serve(machine: Machine, token?: string): Served {
  const rig = createRig(machine);
  const { database, manager, operations, volumes } = rig;
  const metrics = createMetrics({
    memory: rig.environment.resources.memory,
    operations: () => operations.list(),
  });
  const services = { database, manager, operations, volumes, metrics };
  const app = createRestApp(services, { access: { token }, log: machine.log });
  return {
    rig,
    app,
    async ask(method, url, body) {
      const answer = await app.inject({
        method,
        url,
        ...(body === undefined
          ? {}
          : { payload: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      });
      const isJson = (answer.headers['content-type'] ?? '').startsWith('application/json');
      return {
        status: answer.statusCode,
        body: isJson && answer.body !== '' ? JSON.parse(answer.body) : answer.body,
        headers: answer.headers,
      };
    },
    async settle() {
      await volumes.settle();
      while (operations.list().some(({ state }) => state === 'running' || state === 'queued')) {
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
    async close() {
      await app.close();
      await rig.close();
    },
  };
}
