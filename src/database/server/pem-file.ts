/** Certificates and keys that the URL of [database] connection names. */
import { readFile } from 'node:fs/promises';
import { getCACertificates } from 'node:tls';
import type { DatabaseTls } from '../../config/database-tls.ts';
import { BackupError } from '../../model/errors.ts';

/** The text of the file, or undefined if none is named; `config-invalid` if it cannot be read. */
async function readPem(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new BackupError('config-invalid', `[database] connection names ${path}, which cannot be read`, {
      cause,
    });
  }
}

/** Node's own, and those of the system, where a cloud puts its own: what Python takes (ssl.create_default_context). */
function knownAuthorities(): string[] {
  return [...new Set([...getCACertificates('default'), ...getCACertificates('system')])];
}

/** What mysql2 and pg both ask for: the texts of the files that are named, and whether the server's certificate is checked. */
export async function readTlsFiles(tls: DatabaseTls): Promise<{
  readonly ca?: string | string[];
  readonly cert?: string;
  readonly key?: string;
  readonly rejectUnauthorized: boolean;
}> {
  const [ca, cert, key] = await Promise.all([
    readPem(tls.caFile),
    readPem(tls.certFile),
    readPem(tls.keyFile),
  ]);
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(ca === undefined && tls.verify !== 'none' ? { ca: knownAuthorities() } : {}),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    rejectUnauthorized: tls.verify !== 'none',
  };
}
