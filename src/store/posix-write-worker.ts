/** The writing thread of the posix store: small files, one after the other, with blocking calls. */
import { closeSync, constants, fchmodSync, openSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { messageOf } from '../model/errors.ts';
import { fileMode, systemCode } from './posix-error.ts';
import type { WriteAnswer, WriteTask } from './posix-write-messages.ts';

const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;

function write(temporary: string, path: string, bytes: Uint8Array): void {
  let fd = openSync(temporary, flags, fileMode);
  try {
    fchmodSync(fd, fileMode);
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at);
    const whole = fd;
    fd = -1;
    closeSync(whole);
    renameSync(temporary, path);
  } catch (error) {
    cleanUp(fd, temporary);
    throw error;
  }
}

/** Closes and removes a file that did not become whole; the first error is the one that counts. */
function cleanUp(fd: number, temporary: string): void {
  try {
    if (fd >= 0) closeSync(fd);
  } finally {
    removeQuietly(temporary);
  }
}

function removeQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    // A later `recover` finds it.
    void error;
  }
}

function answer({ number, directory, memory, temporaries, names, places }: WriteTask): WriteAnswer {
  for (const [at, name] of names.entries()) {
    const bytes = new Uint8Array(memory, places[2 * at], places[2 * at + 1]);
    try {
      // Not join: it would look at every character of paths that are made of checked names.
      write(`${directory}/${temporaries[at] ?? ''}`, `${directory}/${name}`, bytes);
    } catch (error) {
      return { number, failure: { name, code: systemCode(error), message: messageOf(error) } };
    }
  }
  return { number, failure: null };
}

parentPort?.on('message', (task: WriteTask) => {
  parentPort?.postMessage(answer(task), []);
});
// Ready.
parentPort?.postMessage(null, []);
