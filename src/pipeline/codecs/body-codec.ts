/** What one compression format does to the body of an object. Synchronous: for worker threads. */

/** The body is not what it should be; the message is a clause like "its zlib stream is damaged". */
export class BodyFault extends Error {}

export type BodyCodec = {
  /** Library and level: for the log. */
  readonly name: string;
  /** Compresses all of `input` into the head of `output`. Returns the bytes written, or null if they do not fit. */
  readonly compress: (input: Buffer, output: Buffer) => number | null;
  /** Fills `output` exactly from all of `body`, or throws a BodyFault. */
  readonly decompress: (body: Buffer, output: Buffer) => void;
  /**
   * Decompresses a body that comes in pieces; what it yields is used before the next piece is asked for. Throws a
   * BodyFault if the body is damaged, ends early, or goes on after its end.
   */
  readonly decompressStream: (pieces: AsyncIterable<Buffer>) => AsyncIterable<Buffer>;
};

export const faults = {
  damaged: (format: string, detail: string) => new BodyFault(`its ${format} stream is damaged (${detail})`),
  early: (format: string) => new BodyFault(`its ${format} stream ends early`),
  junk: (format: string, bytes: number) =>
    new BodyFault(`${bytes} bytes follow the end of its ${format} stream`),
  short: (expected: number, got: number) =>
    new BodyFault(`it holds ${got} bytes where its metadata says ${expected}`),
  long: (expected: number) =>
    new BodyFault(`it holds more than the ${expected} bytes that its metadata says`),
};
