/**
 * Paths of the posix store: containers below the root, objects in them, and names of temporary files.
 * No path leaves the root, whatever symbolic links lie below it.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, realpath } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, sep } from 'node:path';
import { systemClock } from '../model/clock.ts';
import { BackupError } from '../model/errors.ts';
import { requireContainer, requireKey } from './key-rules.ts';
import { attempt, posixError, systemCode } from './posix-error.ts';

const temporaryPrefix = '.cinder-delta-';
const temporaryPattern = /^\.cinder-delta-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]+-\d+\.tmp$/;
const maxFileNameBytes = 255;
const cachedPlaces = 256;
const foreignTemporaryAgeMs = 24 * 3600 * 1000;

export type PosixPlaces = {
  /** The directory of an existing container, links resolved; undefined if it is absent. Throws `message-invalid` and `store-*`. */
  find(container: string): Promise<string | undefined>;
  /** Creates the directory and its parents; `made` lists what is new, topmost first. */
  make(container: string): Promise<{ directory: string; made: string[] }>;
  /** Forgets a container that was removed. */
  forget(container: string): void;
  temporaryName(): string;
  /** True for a temporary file whose writer has ended: the same host's process is gone, or it is a day old. */
  isAbandoned(name: string, modifiedMs: number): boolean;
};

/** Whether a directory entry is a temporary file of this program. */
export function isTemporary(name: string): boolean {
  return name.startsWith(temporaryPrefix);
}

/** The file name of `key`; throws `message-invalid` for one that posix layouts do not have. */
export function requireFileName(key: string): string {
  requireKey(key);
  if (!key.includes('/') && !isTemporary(key) && Buffer.byteLength(key) <= maxFileNameBytes) return key;
  throw new BackupError(
    'message-invalid',
    `object name ${JSON.stringify(key.slice(0, 120))} cannot be a file: it must have no "/" and at most ${maxFileNameBytes} bytes; is this a backup of another store?`,
  );
}

export function createPosixPlaces(root: string): PosixPlaces {
  const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
  const started = Math.round(performance.timeOrigin);
  const store = randomBytes(6).toString('hex');
  const known = new Map<string, string>();
  let counter = 0;

  const remember = (container: string, directory: string): string => {
    if (known.size >= cachedPlaces) known.clear();
    known.set(container, directory);
    return directory;
  };

  /** Throws unless the existing `path` lies below the root once links are resolved. */
  const resolveInside = async (path: string, container: string): Promise<string> => {
    const [realRoot, real] = await Promise.all([realpath(root), realpath(path)]);
    if (real === realRoot || real.startsWith(realRoot + sep)) return real;
    throw new BackupError(
      'message-invalid',
      `container ${JSON.stringify(container)} leads out of ${root} over a symbolic link; remove the link`,
    );
  };

  const find = async (container: string): Promise<string | undefined> => {
    const cached = known.get(container);
    if (cached !== undefined) return cached;
    const path = join(root, requireContainer(container));
    try {
      return remember(container, await resolveInside(path, container));
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined;
      throw posixError(`open directory ${path}`, error);
    }
  };

  return {
    find,
    async make(container) {
      known.delete(container);
      const existing = await find(container);
      if (existing !== undefined) return { directory: existing, made: [] };
      const path = join(root, container);
      const action = `create directory ${path}`;
      const made: string[] = [];
      // Each ancestor is checked before anything is made in it. (A recursive mkdir of Node hides EROFS.)
      const firstMade = await attempt(`create directory ${root}`, mkdir(root, { recursive: true }));
      if (firstMade !== undefined) made.push(root);
      let parent = root;
      for (const segment of container.split('/')) {
        await attempt(action, resolveInside(parent, container));
        parent = join(parent, segment);
        if (await makeDirectory(parent, action)) made.push(parent);
      }
      const directory = remember(container, await attempt(action, resolveInside(path, container)));
      return { directory, made };
    },
    forget(container) {
      known.delete(container);
    },
    temporaryName() {
      counter += 1;
      return `${temporaryPrefix}${host}-${process.pid}-${started}-${store}-${counter}.tmp`;
    },
    isAbandoned(name, modifiedMs) {
      const parts = temporaryPattern.exec(name);
      if (parts === null) return false;
      const pid = Number(parts[2]);
      const isOld = systemClock.now().getTime() - modifiedMs > foreignTemporaryAgeMs;
      if (parts[1] !== host) return isOld;
      if (pid === process.pid) return Number(parts[3]) !== started;
      return isOld || !isRunning(pid);
    },
  };
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== 'ESRCH';
  }
}

/** False if it is there already. */
async function makeDirectory(path: string, action: string): Promise<boolean> {
  try {
    await mkdir(path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw posixError(action, error);
  }
}
