import { describe, expect, test } from 'vitest';
import { BackupError, cancelledBy } from '../../src/model/errors.ts';
import { createFixedToken, createTokenSource, type Token } from '../../src/openstack/token-source.ts';

const live = new AbortController().signal;
const hourMs = 3_600_000;

function tokens(lifeMs: number | null) {
  const clock = { nowMs: 1_000_000 };
  const issued: Token[] = [];
  const source = createTokenSource(
    async () => {
      await Promise.resolve();
      const expiresAtMs = lifeMs === null ? null : clock.nowMs + lifeMs;
      const token = { id: `token ${issued.length + 1}`, expiresAtMs, catalog: [], storageUrl: null };
      issued.push(token);
      return token;
    },
    () => clock.nowMs,
  );
  return { clock, issued, source };
}

describe('a token source', () => {
  test('logs in once for all who ask at the same time, and keeps the token', async () => {
    const { issued, source } = tokens(hourMs);
    const ids = await Promise.all([source.current(live), source.current(live), source.current(live)]);
    expect(ids.map(({ id }) => id)).toEqual(['token 1', 'token 1', 'token 1']);
    await source.current(live);
    expect(issued).toHaveLength(1);
  });

  test('renews two minutes before the end, and not earlier', async () => {
    const { clock, source } = tokens(hourMs);
    await source.current(live);
    clock.nowMs += hourMs - 120_001;
    expect((await source.current(live)).id).toBe('token 1');
    clock.nowMs += 1;
    expect((await source.current(live)).id).toBe('token 2');
  });

  test('uses most of the life of a token that lives for seconds', async () => {
    const { clock, source } = tokens(10_000);
    await source.current(live);
    clock.nowMs += 8_999;
    expect((await source.current(live)).id).toBe('token 1');
    clock.nowMs += 1;
    expect((await source.current(live)).id).toBe('token 2');
  });

  test('never renews a token without an end by itself', async () => {
    const { clock, source } = tokens(null);
    await source.current(live);
    clock.nowMs += 1000 * hourMs;
    expect((await source.current(live)).id).toBe('token 1');
  });

  test('gives another token once one was refused, and does not lose it to a late refusal of the first', async () => {
    const { source } = tokens(hourMs);
    const first = await source.current(live);
    expect(source.refuse(first)).toBe(true);
    const second = await source.current(live);
    expect(second.id).toBe('token 2');
    expect(source.refuse(first)).toBe(true);
    expect((await source.current(live)).id).toBe('token 2');
  });

  test('lets one caller leave while the others wait', async () => {
    const { promise, resolve } = Promise.withResolvers<Token>();
    const source = createTokenSource(
      () => promise,
      () => 0,
    );
    const leaving = new AbortController();
    const left = source.current(leaving.signal);
    const stays = source.current(live);
    leaving.abort(new Error('enough'));
    await expect(left).rejects.toMatchObject({ code: 'cancelled' });
    resolve({ id: 'late', expiresAtMs: null, catalog: [], storageUrl: null });
    expect((await stays).id).toBe('late');
  });

  test('tries again after a log-in that failed', async () => {
    let tries = 0;
    const source = createTokenSource(
      async () => {
        await Promise.resolve();
        tries += 1;
        if (tries === 1) throw new BackupError('store-unavailable', 'Keystone rests');
        return { id: 'second', expiresAtMs: null, catalog: [], storageUrl: null };
      },
      () => 0,
    );
    await expect(source.current(live)).rejects.toMatchObject({ code: 'store-unavailable' });
    expect((await source.current(live)).id).toBe('second');
  });

  test('says that the log-in took too long when its own time is up', async () => {
    const expired = AbortSignal.abort(new DOMException('late', 'TimeoutError'));
    const source = createTokenSource(
      () => Promise.reject(cancelledBy(expired)),
      () => 0,
    );
    await expect(source.current(live)).rejects.toMatchObject({ code: 'store-unavailable' });
  });
});

test('a fixed token cannot be renewed', async () => {
  const token = { id: 'user', expiresAtMs: 5, catalog: [], storageUrl: null };
  const source = createFixedToken(token);
  expect(await source.current(live)).toBe(token);
  expect(source.refuse(token)).toBe(false);
  expect(await source.current(live)).toBe(token);
});
