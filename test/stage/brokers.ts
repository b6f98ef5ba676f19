/** RabbitMQ and MariaDB of the stage: what is killed and restarted in the tests of faults. */
import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createConnection, type Connection } from 'mysql2/promise';
import { prepareRabbitMq, rabbitServer } from '../support/rabbitmq-server.ts';
import type { Daemons } from './daemons.ts';
import type { StageSettings } from './settings.ts';

const startTimeoutMs = 120_000;

/** True once something accepts connections there. */
export async function answersAt(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

export async function startRabbit({ directory, ports }: StageSettings, daemons: Daemons): Promise<void> {
  const home = join(directory, 'rabbitmq');
  const { rabbit: port, distribution, epmd: mapper } = ports;
  const env = await prepareRabbitMq(home, { port, distribution, mapper });
  const args = ['-address', '127.0.0.1', '-port', String(mapper)];
  await daemons.start({ name: 'epmd', command: '/usr/bin/epmd', args, env });
  await daemons.ready('epmd', startTimeoutMs, async () => await answersAt(mapper));
  await daemons.start({ name: 'rabbitmq', command: rabbitServer, args: [], env });
}

export async function rabbitIsReady({ ports }: StageSettings, daemons: Daemons): Promise<void> {
  await daemons.ready('rabbitmq', startTimeoutMs, async () => await answersAt(ports.rabbit));
}

/** Where root logs in without a password. */
export function databaseSocket({ directory }: Pick<StageSettings, 'directory'>): string {
  return join(directory, 'mariadb.sock');
}

export async function startMariaDb({ directory, ports }: StageSettings, daemons: Daemons): Promise<void> {
  const data = join(directory, 'mariadb');
  const conf = join(directory, 'etc', 'my.cnf');
  await mkdir(data, { recursive: true });
  await writeFile(
    conf,
    `[mariadbd]
user = root
datadir = ${data}
socket = ${databaseSocket({ directory })}
pid-file = ${data}.pid
bind-address = 127.0.0.1
port = ${ports.database}
max_connections = 300
innodb_flush_log_at_trx_commit = 2
innodb_log_file_size = 16M
character-set-server = utf8mb3
collation-server = utf8mb3_general_ci
`,
  );
  const install = [
    '--no-defaults',
    '--user=root',
    `--datadir=${data}`,
    '--skip-test-db',
    '--auth-root-authentication-method=normal',
  ];
  await promisify(execFile)('/usr/bin/mariadb-install-db', install);
  await daemons.start({ name: 'mariadb', command: '/usr/sbin/mariadbd', args: [`--defaults-file=${conf}`] });
  await daemons.ready('mariadb', startTimeoutMs, async () => await answersAt(ports.database));
  await using connection = await createConnection({
    socketPath: databaseSocket({ directory }),
    user: 'root',
    multipleStatements: true,
  });
  await connection.query(
    `CREATE DATABASE cinder CHARACTER SET utf8mb3; CREATE USER 'cinder'@'127.0.0.1' IDENTIFIED BY 'cinder';
     GRANT ALL ON cinder.* TO 'cinder'@'127.0.0.1'`,
  );
}

/** A connection to Cinder's tables. Dates come as text. */
export async function openCinderDatabase({ ports }: StageSettings): Promise<Connection> {
  return await createConnection({
    host: '127.0.0.1',
    port: ports.database,
    user: 'cinder',
    password: 'cinder',
    database: 'cinder',
    dateStrings: true,
  });
}
