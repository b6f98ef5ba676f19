import { describe, expect, it } from 'vitest';
import { backoffMs, jitteredBackoffMs, retry, type RetryPolicy } from '../../src/async/backoff.ts';

const policy: RetryPolicy = { attempts: 4, firstDelayMs: 100, maxDelayMs: 350 };
const quick: RetryPolicy = { attempts: 4, firstDelayMs: 0, maxDelayMs: 0 };

const always = () => true;
const failing = async (attempt: number) => {
  throw new Error(`no ${attempt}`);
};

describe('the wait', () => {
  it('doubles with each try up to its maximum', () => {
    expect([1, 2, 3, 4].map((attempt) => backoffMs(policy, attempt))).toEqual([100, 200, 350, 350]);
  });

  it('is jittered over its upper half', () => {
    const waits = Array.from({ length: 500 }, () => jitteredBackoffMs(policy, 2));
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(100);
    expect(Math.max(...waits)).toBeLessThanOrEqual(200);
    expect(new Set(waits).size).toBeGreaterThan(10);
  });
});

describe('the wait that the other side asks for', () => {
  it('is kept where it is longer, up to the longest of the policy', () => {
    expect(jitteredBackoffMs(policy, 1, 300)).toBe(300);
    expect(jitteredBackoffMs(policy, 1, 60_000)).toBe(350);
    expect(jitteredBackoffMs(policy, 3, 1)).toBeGreaterThanOrEqual(175);
  });

  it('is taken from the error of the try', async () => {
    const waits: number[] = [];
    await retry({ attempts: 3, firstDelayMs: 1, maxDelayMs: 40 }, failing, {
      isRetryable: always,
      askedMs: () => 30,
      onRetry: (_, __, delayMs) => waits.push(delayMs),
    }).catch(() => undefined);
    expect(waits).toEqual([30, 30]);
  });
});

describe('retry', () => {
  it('returns what the first success returns, and tells each try its number', async () => {
    const seen: number[] = [];
    const result = await retry(
      quick,
      async (attempt) => {
        seen.push(attempt);
        if (attempt < 3) throw new Error(`no ${attempt}`);
        return 'done';
      },
      { isRetryable: always },
    );
    expect(result).toBe('done');
    expect(seen).toEqual([1, 2, 3]);
  });

  it('throws the last error when the attempts are used up', async () => {
    let tries = 0;
    const work = async () => {
      tries += 1;
      throw new Error(`no ${tries}`);
    };
    await expect(retry(quick, work, { isRetryable: always })).rejects.toThrow('no 4');
    expect(tries).toBe(4);
  });

  it('does not try again what is not retryable', async () => {
    let tries = 0;
    const work = async () => {
      tries += 1;
      throw new Error('never');
    };
    await expect(retry(quick, work, { isRetryable: () => false })).rejects.toThrow('never');
    expect(tries).toBe(1);
  });

  it('tells of each failed try that is followed by another, and of no other', async () => {
    const told: unknown[] = [];
    await retry(quick, failing, {
      isRetryable: always,
      onRetry: (error, attempt) => told.push([String(error), attempt]),
    }).catch(() => undefined);
    expect(told).toEqual([
      ['Error: no 1', 1],
      ['Error: no 2', 2],
      ['Error: no 3', 3],
    ]);
  });

  it('stops waiting when the signal aborts', async () => {
    const controller = new AbortController();
    const waiting = retry({ attempts: 2, firstDelayMs: 3_600_000, maxDelayMs: 3_600_000 }, failing, {
      isRetryable: always,
      onRetry: () => setImmediate(() => controller.abort(new Error('enough'))),
      signal: controller.signal,
    });
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('does not begin under an aborted signal', async () => {
    let tries = 0;
    const work = async () => {
      tries += 1;
    };
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(retry(quick, work, { isRetryable: always, signal })).rejects.toThrow('enough');
    expect(tries).toBe(0);
  });
});
