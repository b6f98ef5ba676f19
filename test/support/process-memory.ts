/** Peak memory of processes, from Linux's /proc. */
import { readFile, readdir, writeFile } from 'node:fs/promises';

/** The peak resident bytes (VmHWM) of a process since it began or since resetPeak. */
export async function peakResidentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  if (kib === undefined) throw new Error(`process ${pid} has no VmHWM: it has ended`);
  return Number(kib) * 1024;
}

/** Sets the peak of a process back to what it holds now (proc(5), clear_refs). */
export async function resetPeak(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5');
}

/** The process and all that descend from it, as far as they live now. */
export async function processTree(pid: number): Promise<readonly number[]> {
  const found = [pid];
  for (let at = 0; at < found.length; at += 1) {
    const parent = found[at];
    for (const thread of await readdir(`/proc/${parent}/task`).catch(() => [])) {
      const children = await readFile(`/proc/${parent}/task/${thread}/children`, 'utf8').catch(() => '');
      found.push(...children.split(' ').filter(Boolean).map(Number));
    }
  }
  return found;
}
