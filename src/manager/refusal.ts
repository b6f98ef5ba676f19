/** Requests that are refused: the sentence of cinder-backup, and the class of its exception. */
import type { FailureDetail } from '../database/messages.ts';
import { BackupError } from '../model/errors.ts';

type RefusalClass = 'InvalidBackup' | 'InvalidVolume' | 'InvalidSnapshot';

/** `message` is what the user is told beside it; null: nothing (cinder/backup/manager.py tells of some refusals only). */
export function refusal(name: RefusalClass, reason: string, message: FailureDetail | null): BackupError {
  return new BackupError('state-invalid', reason, {
    details: { cinder: { name, kwargs: { reason } }, message },
  });
}
