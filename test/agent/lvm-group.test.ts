import { describe, expect, test } from 'vitest';
import { CommandError, type Command, type RunCommand } from '../../src/agent/command.ts';
import { createLvmGroup } from '../../src/agent/lvm-group.ts';
import { requireTools } from '../../src/agent/lvm-backend.ts';
import { deviceNumbers } from '../../src/agent/lvm-devices.ts';
import { parseList } from '../../src/agent/lvm-report.ts';

/** A group whose programs answer in turn: a text, or a failure. */
function groupOf(...answers: readonly (string | Error)[]) {
  const commands: Command[] = [];
  const left = [...answers];
  const run: RunCommand = (command) => {
    commands.push(command);
    const answer = left.shift() ?? '';
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  };
  return { group: createLvmGroup({ name: 'cinder-volumes', run, systemDirectory: '/etc/cinder' }), commands };
}

/** A row of `lvs --reportformat json` of LVM 2.03.16. */
const row = {
  lv_name: 'volume-1',
  lv_uuid: 'Fr27bi-Zb4X-4V8I-cTHA-1TcZ-lO9j-8JGuKo',
  vg_uuid: 'hPvCJS-dVuO-cmVn-2aSz-pcWd-AWKG-QqZK3f',
  lv_size: '1073741824',
  segtype: 'thin',
  pool_lv: 'cinder-volumes-pool',
  thin_id: '7',
  origin: '',
  lv_tags: '',
  lv_time: '1764186000',
  chunk_size: '0',
  zero: '',
  lv_dm_path: '/dev/mapper/cinder--volumes-volume--1',
};
const report = (...lv: readonly Record<string, string>[]) => JSON.stringify({ report: [{ lv }], log: [] });

const status = (root: string) =>
  `0 2097152 thin-pool 1 17/1024 25/16384 ${root} rw discard_passdown queue_if_no_space - 1024\n`;

describe('the report of LVM', () => {
  test('is read into values', () => {
    expect(
      parseList(
        report(
          row,
          { ...row, segtype: 'linear' },
          { ...row, lv_name: 'thick', thin_id: '', lv_tags: 'a,b', lv_time: '', zero: 'zero' },
        ),
      ),
    ).toEqual([
      {
        name: 'volume-1',
        uuid: row.lv_uuid,
        groupUuid: row.vg_uuid,
        sizeBytes: 1_073_741_824,
        segmentType: 'thin',
        pool: 'cinder-volumes-pool',
        thinId: 7,
        origin: null,
        tags: [],
        createdAtMs: 1_764_186_000_000,
        chunkBytes: 0,
        zeroes: false,
        path: '/dev/mapper/cinder--volumes-volume--1',
      },
      expect.objectContaining({
        name: 'thick',
        thinId: null,
        tags: ['a', 'b'],
        createdAtMs: 0,
        zeroes: true,
      }),
    ]);
    expect(parseList(report())).toEqual([]);
  });

  test.each([
    '',
    '{}',
    'no JSON',
    report({ ...row, lv_size: '1.00g' }),
    report({ ...row, lv_dm_path: '/x' }),
  ])('in a form that is not known is an error: %s', (text) => {
    expect(() => parseList(text)).toThrow(expect.objectContaining({ code: 'agent-failed' }));
  });
});

test.each([
  ['0.9.0', true],
  ['thin_delta 1.0.6', true],
  ['1.1.0', true],
  ['0.8.5', false],
  ['thin_delta 1.0.0', false],
  ['1.0.5', false],
  ['', false],
])('thin_delta of version %j is trusted: %s', async (version, isTrusted) => {
  const { group } = groupOf(version);
  const checked = requireTools('lvm', group);
  if (isTrusted) await checked;
  else await expect(checked).rejects.toMatchObject({ code: 'config-invalid' });
});

test('the numbers of a device are those that makedev(254, 300) of glibc put together', () => {
  expect(deviceNumbers(0x10_fe2cn)).toEqual({ major: 254n, minor: 300n });
});

describe('the commands of a volume group', () => {
  test('are given names as they are, and the directory of lvm.conf', async () => {
    const { group, commands } = groupOf();
    await group.makeSnapshot('volume-1', 'backup.1', 'cinder-delta:volume-1');
    expect(commands).toEqual([
      expect.objectContaining({
        program: 'lvcreate',
        args: expect.arrayContaining(['--permission', 'r', '--name', 'backup.1', 'cinder-volumes/volume-1']),
        environment: { LVM_SUPPRESS_FD_WARNINGS: '1', LVM_SYSTEM_DIR: '/etc/cinder' },
      }),
    ]);
  });

  test.each([
    ['Failed to find logical volume "vg/x"', 'not-found', /x does not exist/],
    ["Can't get lock for vg; Cannot process volume group vg", 'busy', /locked/],
    ['Volume group "vg" not found; Cannot process volume group vg', 'config-invalid', /volume_group/],
    ['Logical volume vg/x contains a filesystem in use.', 'busy', /in use/],
    ['Logical Volume "x" already exists in volume group "vg"', 'already-exists', /x/],
    ['Free space in pool vg/pool is above threshold, new volumes are not allowed.', 'store-full', /lvextend/],
    [
      'WARNING: Running as a non-root user. Functionality may be unavailable.; Volume group "vg" not found',
      'agent-failed',
      /as root/,
    ],
    ['something else', 'agent-failed', /lvchange says: something else/],
  ] as const)('say what is wrong: %s', async (complaint, code, message) => {
    const { group } = groupOf(new CommandError('lvchange', 5, complaint));
    await expect(group.activate('x')).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test('that are not installed are named, with the packages', async () => {
    const { group } = groupOf(Object.assign(new Error('spawn lvs ENOENT'), { code: 'ENOENT' }));
    await expect(group.list()).rejects.toMatchObject({
      code: 'config-invalid',
      message: expect.stringMatching(/lvs is not installed.*lvm2.*thin-provisioning-tools/),
    });
  });

  test('are tried again when LVM itself has crashed, not when it refuses', async () => {
    const crash = new CommandError('lvs', 139, '');
    const { group, commands } = groupOf(crash, crash, report(row));
    expect(await group.list()).toHaveLength(1);
    expect(commands).toHaveLength(3);
    const crashing = groupOf(crash, crash, crash, report(row));
    await expect(crashing.group.list()).rejects.toMatchObject({ code: 'agent-failed' });
    const late = groupOf(new CommandError('lvs', 'SIGTERM', ''), report(row));
    await expect(late.group.list()).rejects.toMatchObject({ code: 'agent-unavailable' });
    const refusing = groupOf(new CommandError('lvs', 5, 'no'), report(row));
    await expect(refusing.group.list()).rejects.toMatchObject({ code: 'agent-failed' });
  });

  test('tell which metadata of a pool are kept', async () => {
    const pool = parseList(report({ ...row, segtype: 'thin-pool' }))[0];
    if (pool === undefined) throw new Error('no pool');
    const { group, commands } = groupOf(status('-'), status('19'), '0 2097152 thin-pool Fail\n');
    expect(await group.heldMetadata(pool)).toBeNull();
    expect(await group.heldMetadata(pool)).toBe('19');
    await expect(group.heldMetadata(pool)).rejects.toMatchObject({ code: 'agent-failed' });
    expect(commands[0]?.args.at(-1)).toBe('/dev/mapper/cinder--volumes-volume--1-tpool');
  });

  test('removing what is gone succeeds', async () => {
    await groupOf(new CommandError('lvremove', 5, 'Failed to find logical volume "vg/x"')).group.remove('x');
  });
});
