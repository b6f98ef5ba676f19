/**
 * Buffers that begin on a page, as writes past the page cache need them (open(2), O_DIRECT). Node has no other memory of which
 * that is known than WebAssembly's. It is shared memory, which waits long for the collector: buffers that are given back are kept.
 */
import { payloadBufferBytes } from '../protocol/frames.ts';

const wasmPageBytes = 64 * 1024;
/** Those of four restores at a time. */
const keptBuffers = 24;

export type PageBuffers = {
  take(): Buffer;
  /** Takes back a buffer that nobody reads any more. */
  give(buffer: Buffer): void;
};

export function createPageBuffers(): PageBuffers {
  const free: Buffer[] = [];
  return {
    take() {
      const pages = payloadBufferBytes / wasmPageBytes;
      return (
        free.pop() ??
        Buffer.from(new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer)
      );
    },
    give(buffer) {
      if (buffer.length === payloadBufferBytes && free.length < keptBuffers) free.push(buffer);
    },
  };
}
