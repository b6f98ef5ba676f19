/** Certificates and keys that the URL of [database] connection names. */
import { readFile } from 'node:fs/promises';
import { BackupError } from '../../model/errors.ts';

/** The text of the file, or undefined if none is named; `config-invalid` if it cannot be read. */
export async function readPem(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new BackupError('config-invalid', `[database] connection names ${path}, which cannot be read`, {
      cause,
    });
  }
}
