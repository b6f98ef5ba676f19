/**
 * set_log_levels and get_log_levels (cinder/manager.py, cinder/utils.py): `cinder service-set-log` names loggers of Python by
 * a prefix. Ours stand under the names of the Python modules whose work they tell of.
 */
import { z } from 'zod';
import { cinderError } from '../bus/cinder-exceptions.ts';
import {
  encodeMap,
  requireObject,
  versionedObject,
  type Entity,
  type VersionedObject,
} from '../bus/versioned-object.ts';
import type { NamedLoggers } from './named-loggers.ts';

/** Python's names of the levels that Cinder lets one set, and ours. */
const levels: ReadonlyMap<string, string> = new Map([
  ['DEBUG', 'debug'],
  ['INFO', 'info'],
  ['WARNING', 'warn'],
  ['ERROR', 'error'],
]);

/** What Python calls a level of ours. */
function pythonName(level: string): string {
  if (level === 'trace') return 'DEBUG';
  return Array.from(levels).find(([, ours]) => ours === level)?.[0] ?? 'CRITICAL';
}

const fields = z.looseObject({ prefix: z.string().nullish(), level: z.string().nullish() });

function readRequest(logRequest: Entity | undefined): { readonly prefix: string; readonly level: string } {
  const { prefix, level } = fields.parse(encodeMap(requireObject(logRequest, 'LogLevel').data));
  return { prefix: prefix ?? '', level: level ?? '' };
}

/** Sets the level of all loggers whose name begins with the prefix. Throws InvalidInput, `message-invalid`. */
export function setLogLevels(loggers: NamedLoggers, logRequest: Entity | undefined): void {
  const { prefix, level } = readRequest(logRequest);
  const wanted = levels.get(level.toUpperCase());
  if (wanted === undefined) {
    throw cinderError('InvalidInput', { reason: `${level} is not a valid log level.` });
  }
  loggers.setLevel(prefix, wanted);
}

/** A LogLevelList of all loggers whose name begins with the prefix. Throws `message-invalid`. */
export function getLogLevels(loggers: NamedLoggers, logRequest: Entity | undefined): VersionedObject {
  const { prefix } = readRequest(logRequest);
  const objects = loggers
    .levels(prefix)
    .map(({ name, level }) =>
      versionedObject('LogLevel', '1.0', { prefix: name, level: pythonName(level) }, ['level', 'prefix']),
    );
  return versionedObject('LogLevelList', '1.0', { objects }, ['objects']);
}
