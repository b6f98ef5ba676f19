import { expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createNamedLoggers } from '../../src/manager/named-loggers.ts';

function start() {
  const lines: string[] = [];
  const root = createLogger({
    level: 'info',
    destination: { write: (line: string) => void lines.push(line) },
  });
  return { lines, loggers: createNamedLoggers(root) };
}

test('a prefix changes the loggers of that prefix only, and at once', () => {
  const { lines, loggers } = start();
  const manager = loggers.named('cinder.backup.manager');
  const bus = loggers.named('oslo_messaging');
  loggers.setLevel('cinder', 'debug');
  manager.debug('seen');
  bus.debug('not seen');
  expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(['seen']);
});

test('children that were made before, and their children, follow', () => {
  const { lines, loggers } = start();
  const child = loggers.named('cinder.backup.manager').child({ request_id: 'req-1' });
  const grandchild = child.child({ backup: 'b' });
  loggers.setLevel('cinder.backup', 'error');
  child.warn('not seen');
  grandchild.warn('not seen');
  loggers.setLevel('cinder.backup', 'debug');
  grandchild.debug('seen');
  expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
    expect.objectContaining({
      logger: 'cinder.backup.manager',
      request_id: 'req-1',
      backup: 'b',
      msg: 'seen',
    }),
  ]);
});

test('an empty prefix means every logger', () => {
  const { loggers } = start();
  loggers.named('a');
  loggers.named('b');
  loggers.setLevel('', 'warn');
  expect(loggers.levels('')).toEqual([
    { name: 'a', level: 'warn' },
    { name: 'b', level: 'warn' },
  ]);
});

test('a name is one logger, however often it is asked for', () => {
  const { loggers } = start();
  expect(loggers.named('a')).toBe(loggers.named('a'));
});

test('the names of many short-lived children are not kept', () => {
  const { loggers } = start();
  const logger = loggers.named('a');
  for (let count = 0; count < 10_000; count += 1) logger.child({ count });
  loggers.setLevel('a', 'debug');
  expect(logger.level).toBe('debug');
});
