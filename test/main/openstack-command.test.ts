import { expect, test } from 'vitest';
import { isOpenstackCommand, parseOpenstackFlags } from '../../src/main/openstack-command.ts';

test.each([
  [['--config-file', 'a.conf'], true],
  [['--config-file=a.conf'], true],
  [['--debug', '--config-dir', 'd'], true],
  [['--state-dir', 's'], false],
  [[], false],
])('%j asks for the service beside Cinder: %s', (args, expected) => {
  expect(isOpenstackCommand(args)).toBe(expected);
});

test('files and directories keep their order, since later ones win', () => {
  const args = [
    '--config-file',
    'a',
    '--config-dir=b',
    '--config-file=c',
    '--log-file=/var/log/x',
    '--debug',
  ];
  expect(parseOpenstackFlags(args)).toEqual({
    files: [
      { kind: 'file', path: 'a' },
      { kind: 'directory', path: 'b' },
      { kind: 'file', path: 'c' },
    ],
    logFile: '/var/log/x',
    logLevel: 'debug',
  });
});

test('the level that is named counts more than --debug', () => {
  expect(parseOpenstackFlags(['--config-file=a', '--debug', '--log-level', 'warn']).logLevel).toBe('warn');
});

test('everything that is wrong is told at once', () => {
  const args = ['--config-file=', '--state-dir', 's', 'word', '--log-level', 'loud', '--port=1'];
  expect(() => parseOpenstackFlags(args)).toThrow(
    expect.objectContaining({
      code: 'config-invalid',
      details: {
        faults: [
          '--config-file needs a value',
          '--state-dir is not known beside --config-file',
          's is not expected here',
          'word is not expected here',
          '--log-level is loud: it must be one of trace, debug, info, warn, error',
          '--port is not known beside --config-file',
        ],
      },
    }),
  );
});
