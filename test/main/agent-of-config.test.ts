import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openBackends, runConfiguredAgent } from '../../src/main/agent-of-config.ts';
import { createLogger } from '../../src/log.ts';

const log = createLogger({ level: 'silent' });

test('back ends of which none is RBD or thin LVM are nothing to serve, and are named', async () => {
  const backends = [
    {
      name: 'lvm1',
      driverClass: 'cinder.volume.drivers.lvm.LVMVolumeDriver',
      host: 'node1@lvm1',
      storage: { kind: 'lvm', volumeGroup: 'vg', type: 'default', confFile: '/etc/cinder/lvm.conf' },
    },
    { name: 'other1', driverClass: 'a.b.C', host: 'node1@other1', storage: { kind: 'other' } },
  ] as const;
  await expect(openBackends(backends, log)).rejects.toMatchObject({
    code: 'config-invalid',
    message: expect.stringMatching(/lvm1, other1.*no back end of RBD or thin LVM/),
  });
  await expect(openBackends([], log)).rejects.toMatchObject({ code: 'config-invalid' });
});

test('an LVM back end that cannot be served here is the reason only where there is no other', async () => {
  const lvm = {
    name: 'lvm1',
    driverClass: 'cinder.volume.drivers.lvm.LVMVolumeDriver',
    host: 'node1@lvm1',
    storage: { kind: 'lvm', volumeGroup: 'no-such-group', type: 'thin', confFile: '/nonexistent' },
  } as const;
  const rbd = {
    name: 'ceph',
    driverClass: 'cinder.volume.drivers.rbd.RBDDriver',
    host: 'node1@ceph',
    storage: {
      kind: 'rbd',
      clusterName: 'ceph',
      pool: 'volumes',
      user: 'cinder',
      cephConf: '/nonexistent/ceph.conf',
      connectTimeoutS: 1,
    },
  } as const;
  await expect(openBackends([lvm], log)).rejects.toMatchObject({
    code: expect.stringMatching(/config-invalid|agent-failed/),
    message: expect.stringMatching(/no-such-group|lvs/),
  });
  await expect(openBackends([lvm, rbd], log)).rejects.toMatchObject({
    message: expect.stringContaining('/nonexistent/ceph.conf'),
  });
});

test('an agent of cinder.conf does not start without a secret, on whatever address', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-agent-of-config-'));
  const path = join(directory, 'cinder.conf');
  const conf = `[DEFAULT]
enabled_backends = ceph
[ceph]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
rbd_pool = volumes
`;
  await writeFile(path, conf);
  const run = () => runConfiguredAgent(['--config-file', path, '--log-level', 'error']);
  await expect(run()).rejects.toMatchObject({
    code: 'config-invalid',
    message: expect.stringMatching(/agent_token_file is not set.*agent_client_ca_file/),
  });
  await writeFile(path, `${conf}[delta]\nagent_token_file = ${join(directory, 'empty')}\n`);
  await writeFile(join(directory, 'empty'), '\n');
  await expect(run()).rejects.toMatchObject({ code: 'config-invalid' });
  await rm(directory, { recursive: true });
});

test('a configuration that is not there, and a flag that is not known beside it, are told', async () => {
  await expect(runConfiguredAgent(['--config-file', '/nonexistent/cinder.conf'])).rejects.toMatchObject({
    code: 'config-invalid',
  });
  await expect(
    runConfiguredAgent(['--config-file', '/nonexistent/cinder.conf', '--directory', '/v']),
  ).rejects.toThrow(/--directory is not known/);
});
