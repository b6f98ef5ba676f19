import { afterEach, expect, test, vi } from 'vitest';
import { createRbdBackend } from '../../src/agent/rbd-backend.ts';
import { createLogger } from '../../src/log.ts';
import { never, rbdPool, rbdSettings, scriptedRbd } from '../support/scripted-rbd.ts';

afterEach(() => {
  vi.useRealTimers();
});

test('a restore whose image is not opened in time is refused, not held up until it is', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const { threads } = scriptedRbd({
    connect: Promise.resolve({ kind: 'pool', pool: rbdPool }),
    open: never,
  });
  const backend = await createRbdBackend({
    name: 'ceph',
    settings: rbdSettings,
    restoring: new Set(),
    threads,
    log: createLogger({ level: 'silent' }),
  });
  const outcome = Promise.allSettled([backend.openTarget('volume-x')]);
  await vi.advanceTimersByTimeAsync(160_000);
  expect(await outcome).toMatchObject([{ reason: { code: 'agent-unavailable' } }]);
});
