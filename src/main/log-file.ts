/** The file that log lines go to: log_file and log_dir of cinder.conf. It is opened anew when it was moved away (SIGHUP). */
import { isAbsolute, join } from 'node:path';
import { openLogDestination } from '../log.ts';

/** As oslo.log joins them: a relative `path` is in `directory`. */
export function openLogFile(directory: string | undefined, path: string) {
  return openLogDestination(directory === undefined || isAbsolute(path) ? path : join(directory, path));
}
