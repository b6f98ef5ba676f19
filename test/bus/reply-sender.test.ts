import { expect, test } from 'vitest';
import { createReplySender } from '../../src/bus/reply-sender.ts';
import { createLogger } from '../../src/log.ts';

const reply = { messageId: 'm', uniqueId: 'u', result: null, failure: null, ending: true };
const signal = new AbortController().signal;

/** A sender whose time passes only while it waits; `isThere` says whether a queue takes what is sent at that time. */
function senderWith(isThere: (queue: string, nowMs: number) => boolean, missingQueueMs = 60_000) {
  let nowMs = 0;
  const sent: { readonly queue: string; readonly atMs: number }[] = [];
  const sender = createReplySender({
    publisher: {
      publish: ({ routingKey }) => {
        sent.push({ queue: routingKey, atMs: nowMs });
        return Promise.resolve(isThere(routingKey, nowMs) ? 'routed' : 'unroutable');
      },
    },
    missingQueueMs,
    monotonicMs: () => nowMs,
    wait: (delayMs) => {
      nowMs += delayMs;
      return Promise.resolve();
    },
    log: createLogger({ level: 'silent' }),
  });
  return {
    sender,
    sent,
    pass: (delayMs: number) => {
      nowMs += delayMs;
    },
  };
}

test('a reply whose queue is missing is tried again until it is there', async () => {
  const { sender, sent } = senderWith((_queue, nowMs) => nowMs >= 1000);
  await sender.send('q', reply, signal);
  expect(sent.map(({ atMs }) => atMs)).toEqual([0, 250, 500, 750, 1000]);
});

test('a queue that stays missing is given up, and left alone for a minute', async () => {
  const { sender, sent, pass } = senderWith(() => false);
  await sender.send('q', reply, signal);
  expect(sent.at(-1)?.atMs).toBe(60_000);
  const before = sent.length;
  await sender.send('q', reply, signal);
  expect(sent).toHaveLength(before);
  pass(60_000);
  await sender.send('q', reply, signal);
  expect(sent.length).toBeGreaterThan(before);
});

test('only so many queues are remembered as gone', async () => {
  const { sender, sent } = senderWith(() => false, 0);
  for (let index = 0; index <= 200; index += 1) await sender.send(`q${index}`, reply, signal);
  const before = sent.length;
  expect(await sender.sendHeartbeat('q200', reply, signal)).toBe(false);
  expect(sent).toHaveLength(before);
  await sender.sendHeartbeat('q0', reply, signal);
  expect(sent).toHaveLength(before + 1);
});

test('a sign of life is sent once, and says whether somebody sees it', async () => {
  const { sender, sent } = senderWith((queue) => queue === 'there');
  expect(await sender.sendHeartbeat('there', reply, signal)).toBe(true);
  expect(await sender.sendHeartbeat('gone', reply, signal)).toBe(false);
  expect(sent).toHaveLength(2);
});
