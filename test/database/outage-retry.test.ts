import { expect, test } from 'vitest';
import { createOutageRetry } from '../../src/database/server/outage-retry.ts';
import { createLogger } from '../../src/log.ts';
import { BackupError } from '../../src/model/errors.ts';

const away = new BackupError('database-unavailable', 'the database is away');
const log = createLogger({ level: 'silent' });

function rig() {
  const stopping = new AbortController();
  const closing = new AbortController();
  const retry = createOutageRetry({
    outageMs: -1,
    stopping: stopping.signal,
    closing: closing.signal,
    log,
    farewellMs: 50,
  });
  return { retry, stopping, closing };
}

test('what waits for a database that stays away ends soon after the stop, also without a limit', async () => {
  const { retry, stopping } = rig();
  const waiting = retry(() => Promise.reject(away));
  stopping.abort();
  await expect(waiting).rejects.toBe(away);
});

test('what is asked for after the stop waits as long, and is done again after a deadlock', async () => {
  const { retry, stopping } = rig();
  stopping.abort();
  await expect(retry(() => Promise.reject(away))).rejects.toBe(away);
  let tries = 0;
  const value = await retry(() => {
    tries += 1;
    return tries < 3 ? Promise.reject(away) : Promise.resolve('done');
  });
  expect(value).toBe('done');
});

test('a closed database ends what waits', async () => {
  const { retry, closing } = rig();
  const waiting = retry(() => Promise.reject(away));
  closing.abort();
  await expect(waiting).rejects.toBe(away);
});
