/** MySQL's URLs and option files, against SQLAlchemy and PyMySQL themselves. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { optionFilePlace, parseDatabaseUrl } from '../../../src/config/database-url.ts';
import { readOptionFile } from '../../../src/config/mysql-option-file.ts';
import { makeCertificates, type CertificateFiles } from '../../support/certificates.ts';
import { startPythonPeer, type PythonPeer } from '../../support/python-peer.ts';
import { comparisonSeeds, createRandom, type Random } from '../../support/random-volume.ts';

const rounds = 400;

/** Empty says as little as null. */
const filled = z
  .string()
  .nullable()
  .transform((text) => (text === '' ? null : text));

const answer = z.union([
  z.object({ error: z.string() }),
  z.object({
    user: z.string(),
    password: z.string(),
    host: z.string(),
    port: z.number(),
    database: filled,
    socket: filled,
    bind: filled,
    tls: z
      .object({
        ca: z.string().nullable(),
        cert: z.string().nullable(),
        key: z.string().nullable(),
        verify: z.enum(['none', 'ca', 'host']),
      })
      .nullable(),
  }),
]);

let peer: PythonPeer;
let directory: string;
let files: CertificateFiles;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-pymysql-'));
  const made = (await makeCertificates(directory, 'own', ['db'])).get('db');
  if (made === undefined) throw new Error('no certificate was made');
  files = made;
  peer = startPythonPeer(fileURLToPath(new URL('pymysql_peer.py', import.meta.url)));
});

afterAll(async () => {
  await peer.close();
  await rm(directory, { recursive: true });
});

test.each(comparisonSeeds())(
  `${rounds} random URLs with option files lead PyMySQL to where they lead us (seed %i)`,
  async (seed) => {
    const random = createRandom(seed);
    const path = join(directory, 'my.cnf');
    let compared = 0;
    for (let round = 0; round < rounds; round += 1) {
      const content = randomOptionFile(random);
      const url = randomUrl(random, path);
      await writeFile(path, content);
      const story = `${url}\n${content}`;
      const theirs = answer.parse(await peer.ask({ url }));
      // Python refuses what is given twice, and more of a value that is none.
      if ('error' in theirs || theirs.database === null) continue;
      compared += 1;
      const place = optionFilePlace(url);
      const read = place === undefined ? undefined : await readOptionFile(place);
      const ours = parseDatabaseUrl(url, read?.options);
      if (ours.dialect === 'sqlite') throw new Error(`${url} is taken for SQLite`);
      const { tls, socketPath, localAddress, ...others } = ours;
      const named = {
        user: others.user,
        password: others.password,
        host: others.host,
        port: others.port,
        database: others.database,
        socket: socketPath ?? null,
        bind: localAddress ?? null,
      };
      expect({ ...named, tls: null }, story).toEqual({ ...theirs, tls: null });
      expect(tls?.verify, story).toBe(theirs.tls?.verify);
      expect(tls?.caFile ?? null, story).toBe(theirs.tls?.ca ?? null);
      // PyMySQL looks at a key only beside a certificate.
      if (tls?.certFile === undefined) continue;
      expect([tls.certFile, tls.keyFile ?? null], story).toEqual([theirs.tls?.cert, theirs.tls?.key ?? null]);
    }
    expect(compared).toBeGreaterThan(rounds / 4);
  },
);

/** Without a check beside ssl_ca and without ssl_ca: there PyMySQL forgets one of the two. */
function randomUrl(random: Random, path: string): string {
  const ca = `ssl_ca=${files.caFile}`;
  const pair = `ssl_cert=${files.certFile}&ssl_key=${files.keyFile}`;
  const tls = random.pick([
    '',
    ca,
    `${ca}&ssl_check_hostname=false`,
    `${ca}&ssl_check_hostname=yes&${pair}`,
    pair,
    'ssl_check_hostname=false',
    `${ca}&ssl_disabled=true`,
  ]);
  const file = random.pick([
    `read_default_file=${path}`,
    `read_default_file=${path}&read_default_group=tripleo`,
  ]);
  const alone = random.pick(['ssl_verify_cert=true', 'ssl_verify_cert=required', 'ssl_verify_cert=none']);
  const query = random.pick([
    alone,
    tls,
    ...Array.from({ length: 6 }, () => [tls, file].filter((one) => one !== '').join('&')),
  ]);
  const more = random.pick(['', '&unix_socket=/run/url.sock', '&bind_address=10.0.0.1', '&charset=utf8']);
  const user = random.pick(['', 'cinder@', 'cinder:p%40ss@', ':secret@']);
  const place = `${user}${random.pick(['', 'db', '10.0.0.5', '[::1]'])}${random.pick(['', ':3307'])}`;
  return `mysql+pymysql://${place}${random.pick(['', '/', '/cinder', '/cinder', '/cinder', '/cinder'])}?${query}${more}`;
}

function randomOptionFile(random: Random): string {
  const value = () => random.pick(['x', '"a b"', "'q'", '"half', 'it"s', 'a#b', 'a;b', 'a=b:c', '', ' pad ']);
  const quoted = (text: string) => random.pick([text, `"${text}"`, `'${text}'`]);
  const line = () => {
    const indent = random.pick(['', '', '', '  ', '\t', '    ']);
    const sign = random.pick(['=', ' = ', ': ', ' =']);
    switch (random.between(0, 11)) {
      case 0:
        return `${indent}${random.pick(['# ', ';', '#user = '])}${value()}`;
      case 1:
        return random.pick(['', '  ', 'ssl', 'SSL_Mode', '!includedir /etc/my.cnf.d']);
      case 2:
        return `${indent}${random.pick(['ssl-ca', 'ssl_ca', 'SSL-CA'])}${sign}${quoted(files.caFile)}`;
      case 3:
        return `${indent}ssl-cert${sign}${quoted(files.certFile)}\nssl-key${sign}${quoted(files.keyFile)}`;
      case 4:
        return `${indent}port${sign}${quoted('3310')}`;
      default:
        return `${indent}${random.pick(['user', 'password', 'host', 'database', 'socket', 'bind-address'])}${sign}${value()}`;
    }
  };
  const groups = random.pick([
    ['client'],
    ['client', 'tripleo'],
    ['DEFAULT', 'tripleo'],
    ['mysqld', 'client'],
  ]);
  const lines = groups.flatMap((group) => [
    `[${group}]`,
    ...Array.from({ length: random.between(0, 4) }, line),
  ]);
  return lines.join(random.pick(['\n', '\n', '\r\n']));
}
