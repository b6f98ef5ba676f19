/**
 * System calls that Node does not offer, through koffi: holes of a file, physical extents, punching holes, discards, reading
 * ahead, locks.
 * Synchronous: for worker threads. Everything that uses them also works, more slowly, without; only locks do not.
 */
import { getSystemErrorName } from 'node:util';
import { errnoOf } from './file-errors.ts';

export type LinuxCalls = {
  /** The first byte of data at or after `offset`, or null if there is none (lseek SEEK_DATA). */
  seekData(fd: number, offset: number): number | null;
  /** The first byte of a hole at or after `offset`, which must be data; the end of the file counts (SEEK_HOLE). */
  seekHole(fd: number, offset: number): number;
  /** FS_IOC_FIEMAP on a prepared request, in place. */
  fiemap(fd: number, request: Buffer): void;
  /** Makes the range a hole without changing the file's size (fallocate). */
  punchHole(fd: number, offset: number, length: number): void;
  /** BLKDISCARD: the device need not keep the range. */
  discard(fd: number, offset: number, length: number): void;
  /** Tells the kernel to read the range ahead (posix_fadvise); never fails, since it is but advice. */
  willNeed(fd: number, offset: number, length: number): void;
  /** The whole file for this open of it, until that is closed; EAGAIN if another open has it (flock, not waiting). */
  lock(fd: number): void;
};

const seekDataWhence = 3;
const seekHoleWhence = 4;
const fiemapRequest = 0xc020660b;
const discardRequest = 0x1277;
const punchHoleKeepSize = 0x02 | 0x01;
const willNeedAdvice = 3;
const exclusiveNoWait = 0x02 | 0x04;

/** The calls, or null where they cannot be had: another system, or no prebuilt koffi. Calls throw errors with an errno `code`. */
export async function loadLinuxCalls(): Promise<LinuxCalls | null> {
  if (process.platform !== 'linux') return null;
  try {
    const { default: koffi } = await import('koffi');
    const libc = koffi.load(null);
    const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');
    const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
    const flock = libc.func('int flock(int fd, int operation)');
    const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
    const fadvise = libc.func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)');
    const call = (name: string, target: (...args: unknown[]) => unknown, ...args: unknown[]): number => {
      const result = Number(target(...args));
      if (result >= 0) return result;
      const errno = koffi.errno();
      const code = getSystemErrorName(-errno);
      throw Object.assign(new Error(`${code}: ${name}`), { code, errno });
    };
    return {
      seekData(fd, offset) {
        try {
          return call('lseek', lseek, fd, offset, seekDataWhence);
        } catch (error) {
          if (errnoOf(error) === 'ENXIO') return null;
          throw error;
        }
      },
      seekHole: (fd, offset) => call('lseek', lseek, fd, offset, seekHoleWhence),
      fiemap(fd, request) {
        call('ioctl FIEMAP', ioctl, fd, fiemapRequest, request);
      },
      punchHole(fd, offset, length) {
        call('fallocate', fallocate, fd, punchHoleKeepSize, offset, length);
      },
      discard(fd, offset, length) {
        const range = Buffer.alloc(16);
        range.writeBigUInt64LE(BigInt(offset), 0);
        range.writeBigUInt64LE(BigInt(length), 8);
        call('ioctl BLKDISCARD', ioctl, fd, discardRequest, range);
      },
      willNeed(fd, offset, length) {
        fadvise(fd, offset, length, willNeedAdvice);
      },
      lock(fd) {
        call('flock', flock, fd, exclusiveNoWait);
      },
    };
  } catch {
    return null;
  }
}
