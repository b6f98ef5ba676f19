/**
 * Shared memory that begins on a page, as reads and writes past the page cache need it (open(2), O_DIRECT). Node has no other memory
 * of which that is known than WebAssembly's.
 */

/** Such memory is a multiple of this long: a page of WebAssembly's. */
export const memoryUnitBytes = 64 * 1024;
/** What addresses, lengths and offsets are a multiple of on all but the rarest disks, which refuse such a write. */
export const directBytes = 4096;

const pageMemories = new WeakSet<SharedArrayBuffer>();

/**
 * `bytes` rounded up to whole units. It waits long for the collector, so whoever can keeps it. Where address space is limited (each takes
 * some GiB of it, and no memory), other shared memory is given.
 */
export function createPageMemory(bytes: number): SharedArrayBuffer {
  const units = Math.ceil(bytes / memoryUnitBytes);
  try {
    const { buffer } = new WebAssembly.Memory({ initial: units, maximum: units, shared: true });
    pageMemories.add(buffer);
    return buffer;
  } catch {
    return new SharedArrayBuffer(units * memoryUnitBytes);
  }
}

/** True if `bytes`, from `offset` of a file on, can be written past the page cache. */
export function isPageAligned(offset: number, { buffer, byteOffset, length }: Buffer): boolean {
  const isPaged = buffer instanceof SharedArrayBuffer && pageMemories.has(buffer);
  return isPaged && [offset, byteOffset, length].every((n) => n % directBytes === 0);
}
