/** Certificates for tests, made with openssl in a directory that the caller removes. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

export type CertificateFiles = {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
};

const execute = promisify(execFile);
const run = (...args: readonly string[]) => execute('/usr/bin/openssl', args);

/** An authority of the given name, and a certificate of it for each host name. */
export async function makeCertificates(
  directory: string,
  authority: string,
  hosts: readonly string[],
): Promise<ReadonlyMap<string, CertificateFiles>> {
  const caFile = join(directory, `${authority}.pem`);
  const caKey = join(directory, `${authority}.key`);

  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await run(
    'req',
    '-x509',
    ...key,
    '-keyout',
    caKey,
    '-out',
    caFile,
    '-subj',
    `/CN=${authority}`,
    '-days',
    '2',
  );
  const made = new Map<string, CertificateFiles>();
  for (const host of hosts) {
    const certFile = join(directory, `${authority}-${host}.pem`);
    const keyFile = join(directory, `${authority}-${host}.key`);
    const request = join(directory, `${authority}-${host}.csr`);
    const extensions = join(directory, `${authority}-${host}.ext`);
    const kind = /^[0-9.]+$/u.test(host) ? 'IP' : 'DNS';
    await writeFile(extensions, `subjectAltName=${kind}:${host}\n`);
    await run('req', ...key, '-keyout', keyFile, '-out', request, '-subj', `/CN=${host}`);
    await run(
      'x509',
      '-req',
      '-in',
      request,
      '-CA',
      caFile,
      '-CAkey',
      caKey,
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      extensions,
      '-out',
      certFile,
    );
    made.set(host, { caFile, certFile, keyFile });
  }
  return made;
}
