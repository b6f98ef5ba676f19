import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { defaultQuotaRules } from '../../src/database/quotas.ts';
import { parseConfigFile } from '../../src/config/config-files.ts';
import { renderConfigReport } from '../../src/config/config-report.ts';
import { agentUrlFor } from '../../src/config/delta-config.ts';
import type { Problem } from '../../src/config/problem.ts';
import { loadAgentConfig, loadServiceConfig, serviceConfigOf } from '../../src/config/service-config.ts';
import { blockSizeSchema, deltaRequest } from '../../src/protocol/calls.ts';

const base = `[DEFAULT]
transport_url = rabbit://cinder:hunter2@r1,cinder:hunter2@r2:5673/vh
backup_driver = cinder.backup.drivers.posix.PosixBackupDriver
enabled_backends = ceph,lvm
host = node1
[database]
connection = mysql+pymysql://cinder:hunter2@db/cinder
[ceph]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
rbd_pool = volumes
rbd_user = cinder
rbd_ceph_conf = /etc/ceph/ceph.conf
[lvm]
backend_host = storage
`;

function load(...texts: readonly string[]) {
  const problems: Problem[] = [];
  const files = texts.map((content, index) => parseConfigFile(`/etc/${index + 1}.conf`, content, problems));
  return serviceConfigOf({ files, problems });
}

function errorsOf(...texts: readonly string[]): readonly string[] {
  try {
    load(...texts);
  } catch (error) {
    if (error instanceof Error) return error.message.split('\n').slice(1);
  }
  return [];
}

test('a usual cinder.conf is read whole', () => {
  const { config, warnings } = load(base);
  expect(warnings).toEqual([]);
  expect(config).toMatchObject({
    core: { host: 'node1', availabilityZone: 'nova', maxOperations: 15, reportIntervalMs: 10_000 },
    store: {
      kind: 'posix',
      path: '/var/lib/cinder/backup',
      objectSizeBytes: 1_999_994_880,
      codec: 'zlib',
      nfsShare: undefined,
    },
    messaging: {
      broker: {
        virtualHost: 'vh',
        hosts: [
          { hostname: 'r1', port: 5672 },
          { hostname: 'r2', port: 5673 },
        ],
        tls: undefined,
      },
      queues: { controlExchange: 'openstack', durable: false, transientTtlSeconds: 1800 },
      notifications: { format: 'off' },
    },
    database: { url: { dialect: 'mysql', host: 'db' } },
    backends: [
      { name: 'ceph', host: 'node1@ceph', storage: { kind: 'rbd', pool: 'volumes', user: 'cinder' } },
      { name: 'lvm', host: 'storage@lvm', storage: { kind: 'lvm', volumeGroup: 'cinder-volumes' } },
    ],
    keyManager: { kind: 'barbican' },
    delta: { keepSnapshots: 1, memoryLimitBytes: 536_870_912 },
  });
});

test('all errors of all sections are told at once, each with its place and what to do', () => {
  const errors = errorsOf(
    `[DEFAULT]
backup_driver = cinder.backup.drivers.ceph.CephBackupDriver
backup_max_operations = many
transport_url = qpid://h/
nonsense
[delta]
keep_snapshot = 2
[oslo_messaging_rabbit]
rabbit_quorum_queue = true
rabbit_ha_queues = true
`,
  );
  expect(errors).toHaveLength(7);
  expect(errors.join('\n')).toMatchInlineSnapshot(`
    "- /etc/1.conf:5: the line cannot be read: an option is written "name = value"
    - /etc/1.conf:3: [DEFAULT] backup_max_operations = many: it must be an integer of at least 0
    - /etc/1.conf:2: [DEFAULT] backup_driver = cinder.backup.drivers.ceph.CephBackupDriver: backups in a Ceph pool are RBD images, which cinder-delta does not write; it must be one of cinder.backup.drivers.swift.SwiftBackupDriver, cinder.backup.drivers.s3.S3BackupDriver, cinder.backup.drivers.posix.PosixBackupDriver, cinder.backup.drivers.nfs.NFSBackupDriver
    - /etc/1.conf:4: [DEFAULT] transport_url = [secret]: "qpid" is not supported; it must be rabbit://user:password@host:port/virtual_host
    - /etc/1.conf:10: [oslo_messaging_rabbit] rabbit_ha_queues = true: a queue is mirrored or quorum, not both: unset this or rabbit_quorum_queue
    - [database] connection: it must be set: mysql+pymysql://user:password@host/cinder or postgresql://…
    - /etc/1.conf:7: [delta] keep_snapshot: there is no such option; did you mean keep_snapshots?"
  `);
});

test('no error and no report shows a secret', () => {
  const { entries } = load(base);
  const report = renderConfigReport(entries, { all: true });
  expect(report).not.toContain('hunter2');
  expect(
    errorsOf(base.replace('rabbit://', 'zmq://').replace('mysql+pymysql', 'oracle')).join('\n'),
  ).not.toContain('hunter2');
});

test('the report names each value with its file and line, and the defaults only when asked', () => {
  const { entries } = load(base, '[DEFAULT]\nhost = node2\n');
  const report = renderConfigReport(entries, { all: false });
  expect(report).toContain('\nhost = node2  # /etc/2.conf:2\n');
  expect(report).toContain('transport_url = [secret]  # /etc/1.conf:2');
  expect(report).not.toContain('# default');
  expect(renderConfigReport(entries, { all: true })).toContain('backup_max_operations = 15  # default');
});

test.each([
  ['cinder.backup.drivers.ceph.CephBackupDriver', 'RBD images'],
  ['cinder.backup.drivers.gcs.GoogleBackupDriver', 'Google'],
  ['cinder.backup.drivers.google.GoogleBackupDriver', 'Google'],
  ['cinder.backup.drivers.glusterfs.GlusterfsBackupDriver', 'GlusterFS'],
  ['cinder.backup.drivers.swift', 'no such driver'],
])('the driver %s is refused in plain words', (driver, words) => {
  expect(errorsOf(base.replace('cinder.backup.drivers.posix.PosixBackupDriver', driver)).join()).toContain(
    words,
  );
});

test('NFS is the posix layout on the mount point that os-brick uses', () => {
  const { config } = load(
    base,
    '[DEFAULT]\nbackup_driver = cinder.backup.drivers.nfs.NFSBackupDriver\nbackup_share = nas:/export\n',
  );
  expect(config.store).toMatchObject({
    kind: 'posix',
    driverClass: 'cinder.backup.drivers.nfs.NFSBackupDriver',
    path: '/var/lib/cinder/backup_mount/2b4c10925391a8bf333a66a39612b4fe',
    nfsShare: 'nas:/export',
  });
});

test('Swift with single_user needs its credentials, S3 its endpoint and keys', () => {
  const swift = base.replace('posix.PosixBackupDriver', 'swift.SwiftBackupDriver');
  expect(load(swift).config.store).toMatchObject({
    kind: 'swift',
    auth: 'per_user',
    objectSizeBytes: 52_428_800,
    catalogInfo: { serviceName: 'swift' },
  });
  expect(
    errorsOf(swift, '[DEFAULT]\nbackup_swift_auth = single_user\nbackup_swift_auth_version = 4\n'),
  ).toHaveLength(3);
  expect(errorsOf(base.replace('posix.PosixBackupDriver', 's3.S3BackupDriver'))).toHaveLength(3);
});

const s3 = base
  .replace('posix.PosixBackupDriver', 's3.S3BackupDriver')
  .replace(
    '[database]',
    'backup_s3_endpoint_url = http://s3\nbackup_s3_store_access_key = a\nbackup_s3_store_secret_key = s\n[database]',
  );

test('a time-out of S3 is whole milliseconds, however it is written', () => {
  const { config } = load(s3, '[DEFAULT]\nbackup_s3_timeout = 16.1\n');
  expect(config.store).toMatchObject({ timeoutMs: 16_100 });
});

test('the retry mode of S3 is one of those of boto3', () => {
  expect(errorsOf(s3, '[DEFAULT]\nbackup_s3_retry_mode = adaptive\n')).toEqual([]);
  expect(errorsOf(s3, '[DEFAULT]\nbackup_s3_retry_mode = eager\n').join()).toContain('legacy');
});

test.each(['backup_s3_sse_customer_key = k', 'backup_s3_sse_customer_algorithm = AES256'])(
  '%s alone is warned of, as Cinder does',
  (line) => {
    const { warnings } = load(s3, `[DEFAULT]\n${line}\n`);
    expect(warnings).toEqual([expect.stringContaining('must both be set')]);
  },
);

test.each([
  ['1.0', '', { authVersion: 1, user: 'demo:cinder', project: undefined }],
  ['2.0', '', { authVersion: 2, user: 'cinder', project: 'demo' }],
  ['3.0', '', { authVersion: 3, user: 'cinder', project: 'demo' }],
  ['3', 'backup_swift_project = service', { authVersion: 3, user: 'cinder', project: 'service' }],
  ['3', 'backup_swift_tenant = service', { authVersion: 3, user: 'demo:cinder', project: 'service' }],
])('backup_swift_auth_version %s reads demo:cinder as swiftclient does (%s)', (version, more, expected) => {
  const lines = `[DEFAULT]
backup_swift_auth = single_user
backup_swift_auth_version = ${version}
backup_swift_user = demo:cinder
backup_swift_key = k
${more}
`;
  const { config } = load(base.replace('posix.PosixBackupDriver', 'swift.SwiftBackupDriver'), lines);
  expect(config.store).toMatchObject(expected);
});

test('an object size that is no multiple of the block size is refused with one that is', () => {
  expect(errorsOf(base, '[DEFAULT]\nbackup_file_size = 100000\n').join()).toContain('for example 98304');
});

test.each([0, 256, 511, 512, 1000, 65_536, 98_304, 4_194_304, 8_388_608, 16_777_216])(
  'a block size of %d is refused where agents refuse it, with what to set and what follows',
  (bytes) => {
    const lines = `[DEFAULT]\nbackup_sha_block_size_bytes = ${bytes}\nbackup_file_size = ${16 * bytes}\n`;
    const errors = errorsOf(base, lines);
    if (blockSizeSchema.safeParse(bytes).success) expect(errors).toEqual([]);
    else {
      expect(errors).toEqual([
        expect.stringMatching(
          `backup_sha_block_size_bytes = ${bytes}: .*power of two from 512 to 4194304.*set it to 32768.*full`,
        ),
      ]);
    }
  },
);

test('a gap that is merged is at most what agents take', () => {
  const most = 64 * 1024 ** 2;
  const errorsFor = (beyond: number) =>
    errorsOf(base, `[delta]\nobject_merge_gap_bytes = ${most + beyond}\n`);
  const { merge_gap } = deltaRequest.shape;
  expect([merge_gap.safeParse(most).success, merge_gap.safeParse(most + 1).success]).toEqual([true, false]);
  expect(errorsFor(0)).toEqual([]);
  expect(errorsFor(1)).toEqual([
    expect.stringContaining(`= ${most + 1}: it must be an integer from 0 to ${most}`),
  ]);
});

test('an unknown backup option is named in a warning, and one of another service is not', () => {
  const { warnings } = load(
    base,
    '[DEFAULT]\nbackup_swfit_container = x\nbackup_use_same_host = true\nbackup_workers = 2\nbackup_ceph_pool = y\nbackup_container = /srv\n',
  );
  expect(warnings).toEqual([
    '/etc/2.conf:2: [DEFAULT] backup_swfit_container has no effect: there is no such option',
    '/etc/2.conf:4: [DEFAULT] backup_workers has no effect: one process serves all operations, with threads of its own ([delta] seal_threads)',
    '/etc/2.conf:5: [DEFAULT] backup_ceph_pool has no effect: it belongs to a driver that cinder-delta does not have',
    '/etc/2.conf:6: [DEFAULT] backup_container has no effect: cinder-backup does not act on it either; each backup gets a directory of its own',
  ]);
});

test('options of the transport URL go before those of the section', () => {
  const url = 'transport_url = rabbit://h/?amqp_durable_queues=true&rabbit_transient_queues_ttl=60';
  const { config } = load(base, `[DEFAULT]\n${url}\n[oslo_messaging_rabbit]\namqp_durable_queues = false\n`);
  expect(config.messaging.queues).toMatchObject({ durable: true, transientTtlSeconds: 60 });
  expect(errorsOf(base, `[DEFAULT]\n${url}&ttl=1\n`).join()).toContain('its option ttl');
});

test('credentials may stand in a section that auth_section names', () => {
  const { config } = load(
    base,
    '[service_user]\nsend_service_user_token = true\nauth_section = shared\n[shared]\nauth_url = http://k/v3\nuser-name = u\npassword = p\nproject_name = service\n',
  );
  expect(config.serviceUser).toMatchObject({
    authUrl: 'http://k/v3',
    identity: { kind: 'password', username: 'u', scope: { projectName: 'service' } },
  });
});

test('a report interval that the service cannot keep makes the down time longer, as in Cinder', () => {
  const { config, warnings } = load(base, '[DEFAULT]\nreport_interval = 100\n');
  expect(config.core.serviceDownMs).toBe(250_000);
  expect(warnings.join()).toContain('service_down_time (60)');
});

test('names on the storage that are not those of the default are refused', () => {
  const errors = errorsOf(
    base,
    '[DEFAULT]\nvolume_name_template = vol-%s\nsnapshot_name_template = snapshot-%s\n',
  );
  expect(errors).toEqual([
    expect.stringContaining('volume_name_template = vol-%s: cinder-delta finds volumes'),
  ]);
});

test('what is set and has no effect is told', () => {
  const { warnings } = load(
    base,
    '[DEFAULT]\nbackup_service_inithost_offload = false\nbackup_name_template = b-%s\n',
  );
  expect(warnings).toHaveLength(2);
  for (const warning of warnings) expect(warning).toContain('has no effect');
});

test.each([
  ['DEFAULT', 'use_syslog', 'true'],
  ['DEFAULT', 'use_stderr', 'on'],
  ['database', 'use_db_reconnect', 'true'],
  ['database', 'db_retry_interval', '2'],
  ['database', 'db_inc_retry_interval', 'no'],
  ['database', 'db_max_retry_interval', '20'],
  ['database', 'db_max_retries', '-1'],
])('[%s] %s = %s is warned of: nothing acts on it', (section, name, value) => {
  const { warnings } = load(base, `[${section}]\n${name} = ${value}\n`);
  expect(warnings).toEqual([expect.stringContaining(`/etc/2.conf:2: [${section}] ${name} has no effect: `)]);
});

test('an option that nothing acts on may stand at its default', () => {
  const lines = '[DEFAULT]\nuse_syslog = False\n[database]\ndb_max_retries = 20\ndb_inc_retry_interval = 1\n';
  expect(load(base, lines).warnings).toEqual([]);
});

test.each([
  ['', 55, 5],
  ['max_pool_size = 1', 51, 1],
  ['max_pool_size = 3\nmax_overflow = 0', 3, 3],
  ['max_pool_size = 0\nmax_overflow = 7', Infinity, Infinity],
  ['max_overflow = -1', Infinity, 5],
])(
  'with "%s" there are %d connections, of which %d stay open',
  (lines, maxConnections, maxIdleConnections) => {
    const { config } = load(base, `[database]\n${lines}\n`);
    expect(config.database).toMatchObject({ maxConnections, maxIdleConnections });
  },
);

test('the waiting of Galera is that of the server unless it is set', () => {
  expect(load(base).config.database.mysqlWsrepSyncWait).toBeUndefined();
  const { config } = load(base, '[database]\nmysql_wsrep_sync_wait = 1\n');
  expect(config.database.mysqlWsrepSyncWait).toBe(1);
});

test('new services are enabled, and messages live for thirty days, unless it is said otherwise', () => {
  expect(load(base).config.core).toMatchObject({ enableNewServices: true, messageTtlMs: 2_592_000_000 });
  const { config } = load(base, '[DEFAULT]\nenable_new_services = false\nmessage_ttl = 60\n');
  expect(config.core).toMatchObject({ enableNewServices: false, messageTtlMs: 60_000 });
});

test('the rules of quotas are those of cinder', () => {
  expect(load(base).config.core.quota).toEqual(defaultQuotaRules);
  const { config } = load(base, '[DEFAULT]\nuntil_refresh = 3\nmax_age = 60\nreservation_expire = 7\n');
  expect(config.core.quota).toEqual({ untilRefresh: 3, maxAgeSeconds: 60, reservationSeconds: 7 });
});

test('the agent of a volume is found by its full host, by its host name, or by port', () => {
  const { config } = load(
    base,
    '[delta]\nagent_address = node1@ceph https://10.0.0.1:1/\nagent_address = node2 http://10.0.0.2:2\nagent_tls = true\n',
  );
  const { agents } = config.delta;
  expect(agentUrlFor(agents, 'node1@ceph#pool')).toBe('https://10.0.0.1:1');
  expect(agentUrlFor(agents, 'node2@any#pool')).toBe('http://10.0.0.2:2');
  expect(agentUrlFor(agents, 'node3@lvm')).toBe('https://node3:8777');
  expect(agentUrlFor({ ...agents, url: 'http://all:9' }, 'node1@ceph#p')).toBe('http://all:9');
});

test('files and directories are read in the order given, and what is missing is told', async () => {
  const place = await mkdtemp(join(tmpdir(), 'cinder-delta-config-'));
  try {
    await mkdir(join(place, 'conf.d'));
    await writeFile(join(place, 'cinder.conf'), base);
    await writeFile(join(place, 'conf.d', 'b.conf'), '[DEFAULT]\nhost = from-b\n');
    await writeFile(join(place, 'conf.d', 'a.conf'), '[DEFAULT]\nhost = from-a\n');
    await writeFile(join(place, 'conf.d', 'c.txt'), '[DEFAULT]\nhost = from-c\n');
    await writeFile(join(place, 'latin.conf'), Buffer.from([0x5b, 0xe9, 0x5d]));
    const given = [
      { kind: 'file', path: join(place, 'cinder.conf') },
      { kind: 'directory', path: join(place, 'conf.d') },
    ] as const;
    expect((await loadServiceConfig(given)).config.core.host).toBe('from-b');
    expect((await loadAgentConfig(given.toReversed())).config.core.host).toBe('node1');
    const missing = loadServiceConfig([
      ...given,
      { kind: 'file', path: join(place, 'gone.conf') },
      { kind: 'file', path: join(place, 'latin.conf') },
    ]);
    await expect(missing).rejects.toThrow(
      /2 errors:\n- .*gone\.conf: .*ENOENT.*\n- .*latin\.conf: .*not UTF-8/u,
    );
  } finally {
    await rm(place, { recursive: true });
  }
});
