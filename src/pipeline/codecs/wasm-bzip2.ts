/**
 * bz2 streams by bzip2-wasm, where the system's libbz2 cannot be called. Its own functions keep a view of memory that
 * is detached as soon as that grows, so its module is called directly. Bytes after the end of a stream go unseen.
 */
import BZip2 from 'bzip2-wasm';
import { BackupError } from '../../model/errors.ts';
import { faults, type BodyCodec } from './body-codec.ts';

const level = 9;
const outputFull = -8;
const unexpectedEnd = -7;

export async function openWasmBzip2(): Promise<BodyCodec> {
  const bzip2 = new BZip2();
  await bzip2.init();
  const wasm = bzip2.wasmModule;
  const {
    _malloc: malloc,
    _free: free,
    _BZ2_bzBuffToBuffCompress: compress,
    _BZ2_bzBuffToBuffDecompress: decompress,
  } = wasm;

  /** Copies `input` in, runs `call`, copies what it made into `output`. */
  const run = (
    input: Buffer,
    output: Buffer,
    call: (to: number, room: number, from: number) => number,
  ): { readonly result: number; readonly made: number } => {
    const held: number[] = [];
    const allocate = (bytes: number): number => {
      const pointer = malloc(bytes);
      if (pointer === 0) throw new Error(`bzip2-wasm has no memory for ${bytes} bytes`);
      held.push(pointer);
      return pointer;
    };
    try {
      const from = allocate(Math.max(1, input.length));
      const to = allocate(Math.max(1, output.length));
      const room = allocate(4);
      wasm.HEAPU8.set(input, from);
      wasm.setValue(room, output.length, 'i32');
      const result = call(to, room, from);
      const made = result === 0 ? wasm.getValue(room, 'i32') : 0;
      output.set(wasm.HEAPU8.subarray(to, to + made));
      return { result, made };
    } finally {
      for (const pointer of held) free(pointer);
    }
  };

  return {
    name: `bzip2-wasm ${level}`,
    compress(input, output) {
      const { result, made } = run(input, output, (to, room, from) =>
        compress(to, room, from, input.length, level, 0, 0),
      );
      if (result === outputFull) return null;
      if (result !== 0) throw new Error(`BZ2_bzBuffToBuffCompress answers ${result}`);
      return made;
    },
    decompress(body, output) {
      const { result, made } = run(body, output, (to, room, from) =>
        decompress(to, room, from, body.length, 0, 0),
      );
      if (result === outputFull) throw faults.long(output.length);
      if (result === unexpectedEnd) throw faults.early('bz2');
      if (result !== 0) throw faults.damaged('bz2', `bzip2-wasm answers ${result}`);
      if (made !== output.length) throw faults.short(output.length, made);
    },
    decompressStream() {
      throw new BackupError(
        'config-invalid',
        'a bz2 object of this size can only be read with the system library libbz2: install libbz2-1.0 (Debian) or bzip2-libs (Red Hat)',
      );
    },
  };
}
