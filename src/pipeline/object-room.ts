/**
 * The memory of object lists. A restore or a verification knows all objects of its chain from its beginning to its end; they
 * come out of a quarter of the declared ceiling that nothing else uses. Whoever needs both waits for its lists first and for
 * its slabs (memory.ts) after that, so that operations cannot wait for each other in a circle.
 */
import { createBudget, type Budget } from '../async/limit.ts';
import { bytesPerObject } from '../layout/chain.ts';
import { BackupError } from '../model/errors.ts';

const listShare = 4;
const mebibyte = 1024 * 1024;

/** The budgets of a process whose ceiling is `ceilingBytes`. */
export function divideMemory(ceilingBytes: number): {
  readonly buffers: Budget;
  readonly objectLists: Budget;
} {
  const lists = Math.floor(ceilingBytes / listShare);
  return { buffers: createBudget(ceilingBytes - lists), objectLists: createBudget(lists) };
}

/** Objects of a chain that one restore has room for when nothing else runs. */
export function mostObjects(objectLists: Budget): number {
  return Math.floor(objectLists.capacity / bytesPerObject);
}

/** Room for the objects of one chain. */
export type ObjectRoom = {
  /** Counts an object. Throws `limit-exceeded` if there are more than were expected and nothing is free. */
  take(): void;
  /** May be called twice. */
  release(): void;
};

/** Objects beyond those expected get room in steps of so many. */
const moreObjects = 1024;

/**
 * Waits until there is room for `expected` objects, what the rows say. Throws `limit-exceeded` if there will never be, and the
 * signal's reason.
 */
export async function reserveObjects(
  objectLists: Budget,
  expected: number,
  signal: AbortSignal,
): Promise<ObjectRoom> {
  if (expected > mostObjects(objectLists)) throw tooMany(expected, objectLists);
  const releases = [await objectLists.acquire(expected * bytesPerObject, signal)];
  let room = expected;
  let taken = 0;
  return {
    take() {
      taken += 1;
      if (taken <= room) return;
      const release = objectLists.tryAcquire(moreObjects * bytesPerObject);
      if (release === undefined) throw tooMany(taken, objectLists);
      releases.push(release);
      room += moreObjects;
    },
    release() {
      for (const release of releases.splice(0)) release();
    },
  };
}

function tooMany(objects: number, objectLists: Budget): BackupError {
  const { capacity } = objectLists;
  const needMebibytes = Math.ceil((objects * bytesPerObject * listShare) / mebibyte);
  return new BackupError(
    'limit-exceeded',
    `the chain of this backup has ${objects} objects or more, there is memory for ${mostObjects(objectLists)}: start the service with --memory-mib ${needMebibytes} or more, and make the next backup a full one`,
    { details: { objects, capacity } },
  );
}
