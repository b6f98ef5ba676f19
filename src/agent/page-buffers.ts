/** Buffers that begin on a page, as writes past the page cache need them; those that are given back are kept. */
import { createPageMemory } from '../model/page-memory.ts';
import { payloadBufferBytes } from '../protocol/frames.ts';

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
      return free.pop() ?? Buffer.from(createPageMemory(payloadBufferBytes));
    },
    give(buffer) {
      if (buffer.length === payloadBufferBytes && free.length < keptBuffers) free.push(buffer);
    },
  };
}
