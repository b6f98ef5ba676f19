import { mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createLogger, openLogDestination, secretFields, withLogFields } from '../src/log.ts';
import { BackupError } from '../src/model/errors.ts';

function capture(level = 'info') {
  const lines: string[] = [];
  const log = createLogger({ level, destination: { write: (line: string) => void lines.push(line) } });
  return { log, lines, last: () => JSON.parse(lines.at(-1) ?? '{}') as Record<string, unknown> };
}

describe('a log line', () => {
  it('is JSON with level, ISO time and fields', () => {
    const { log, last } = capture();
    log.info({ backupId: 'b-1' }, 'backup started');
    expect(last()).toMatchObject({ level: 'info', backupId: 'b-1', msg: 'backup started' });
    expect(last()['time']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  });

  it('is not written below the level', () => {
    const { log, lines } = capture('warn');
    log.info('nothing');
    expect(lines).toEqual([]);
  });

  it('carries an error with code, stack and cause', () => {
    const { log, last } = capture();
    log.error({ err: new BackupError('corrupt', 'bad block', { cause: new Error('crc') }) }, 'failed');
    expect(last()['err']).toMatchObject({ code: 'corrupt', message: expect.stringContaining('bad block') });
    expect(JSON.stringify(last()['err'])).toContain('crc');
  });
});

describe('a secret', () => {
  for (const field of secretFields) {
    it(`in ${field} is not written, on whatever object it hangs`, () => {
      const { log, lines } = capture();
      log.info({ [field]: 'hunter2' }, 'top');
      log.info({ options: { [field]: 'hunter2' } }, 'one below');
      log.info({ a: { options: { [field]: 'hunter2' } } }, 'two below');
      log.info({ request: { headers: { [field]: ['hunter2'] } } }, 'in a list');
      log.child({ [field]: 'hunter2' }).info('of a child');
      log.error({ err: Object.assign(new Error('refused'), { [field]: 'hunter2' }) }, 'on an error');
      expect(lines).toHaveLength(6);
      expect(lines.join('')).not.toContain('hunter2');
    });
  }

  it('of an agent client does not get into its errors', () => {
    const { log, lines } = capture();
    const details = { token: 'hunter2', authorization: 'Bearer hunter2' };
    log.error({ err: new BackupError('access-denied', 'the agent refused', { details }) }, 'failed');
    expect(lines.join('')).not.toContain('hunter2');
  });
});

it('the fields of a request are on every line that its work writes, and on no other', async () => {
  const lines: string[] = [];
  const log = createLogger({ level: 'info', destination: { write: (line) => void lines.push(line) } });
  const child = log.child({ part: 'store' });
  await Promise.all([
    withLogFields({ request_id: 'req-1' }, async () => {
      await new Promise((resolve) => setImmediate(resolve));
      child.info('one');
    }),
    withLogFields({ request_id: 'req-2' }, async () => {
      await new Promise((resolve) => setImmediate(resolve));
      child.info('two');
    }),
  ]);
  log.info('three');
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { msg: 'one', request_id: 'req-1', part: 'store' },
    { msg: 'two', request_id: 'req-2', part: 'store' },
    { msg: 'three' },
  ]);
  expect(lines[2]).not.toContain('request_id');
});

it('a log file is made with its directory, and made anew when it was moved away', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-log-'));
  try {
    const path = join(directory, 'cinder', 'backup.log');
    const log = createLogger({ level: 'info', destination: openLogDestination(path) });
    log.info('before');
    await rename(path, `${path}.1`);
    process.emit('SIGHUP');
    await expect.poll(async () => await readFile(path, 'utf8').catch(() => null)).toBe('');
    log.info('after');
    expect(await readFile(`${path}.1`, 'utf8')).toContain('before');
    await expect.poll(async () => await readFile(path, 'utf8')).toContain('after');
  } finally {
    await rm(directory, { recursive: true });
  }
});
