/**
 * `backup.createprogress`: at the start, then each so many objects and each so often, as cinder/backup/chunkeddriver.py
 * does it. The percentage is of the bytes that are planned; Cinder divides blocks by bytes. The list of objects stays empty: it
 * would grow with the backup, into every notification.
 */
import type { Backup } from '../model/backup.ts';
import type { Progress } from '../pipeline/jobs.ts';
import type { ManagerEnvironment } from './environment.ts';

const lookEachMs = 1000;

/** Notifies until it is disposed of. */
export function notifyProgress(
  { cloud, options }: ManagerEnvironment,
  backup: Backup,
  progress: Readonly<Progress>,
): Disposable & { finished(): void } {
  const { objects, intervalMs } = options.notifyProgress;
  let [toldBytes, toldAtMs] = [0, performance.now()];

  const tell = (percent: number) => {
    [toldBytes, toldAtMs] = [progress.doneBytes, performance.now()];
    cloud.notify(backup, 'createprogress', {
      id: 1 + Math.floor(progress.doneBytes / options.objectBytes),
      list: [],
      prefix: backup.prefix,
      volume_meta: null,
      backup_percent: percent,
    });
  };
  const timer = setInterval(() => {
    const isMuch = progress.doneBytes - toldBytes >= objects * options.objectBytes;
    const isLong = intervalMs > 0 && performance.now() - toldAtMs >= intervalMs;
    if (isMuch || isLong) tell(percentOf(progress));
  }, lookEachMs);
  timer.unref();
  tell(0);
  return {
    finished: () => tell(100),
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

/** Of a backup that runs: 100 is for one that has ended. */
function percentOf({ plannedBytes, doneBytes }: Readonly<Progress>): number {
  if (plannedBytes === null || plannedBytes === 0) return 0;
  return Math.min(99, Math.round((doneBytes / plannedBytes) * 1000) / 10);
}
