/** Verifies a backup: everything a restore would read is read and checked, and every bad range reported. */
import { getBackup } from '../database/backups.ts';
import { BackupError } from '../model/errors.ts';
import { runVerify } from '../pipeline/verify.ts';
import { loadChain, readReadableLayers } from './chain.ts';
import type { ManagerEnvironment } from './environment.ts';
import type { OperationRun } from './operations.ts';

/** Runs the verification; its outcome is kept in the operation. No row is written. */
export async function verifyBackup(
  environment: ManagerEnvironment,
  backupId: string,
  run: OperationRun,
): Promise<void> {
  const { resources, database } = environment;
  const { signal, progress } = run;
  const backup = await getBackup(database.sql, backupId);
  if (backup.status !== 'available' && backup.status !== 'restoring' && backup.status !== 'error') {
    throw new BackupError(
      'state-invalid',
      `backup ${backupId} is ${backup.status}: only a finished one can be verified`,
    );
  }
  using held = await readReadableLayers(resources, await loadChain(database.sql, backup), signal);
  const { layers: chain, unreadable } = held;
  run.keep(await runVerify(resources, { chain, unreadable, progress, signal }));
}
