declare module 'bzip2-wasm' {
  /** What the compiled module exports; `HEAPU8` is replaced whenever its memory grows. */
  type BZip2Module = {
    readonly HEAPU8: Uint8Array;
    readonly _malloc: (bytes: number) => number;
    readonly _free: (pointer: number) => void;
    getValue(pointer: number, type: 'i32'): number;
    setValue(pointer: number, value: number, type: 'i32'): void;
    readonly _BZ2_bzBuffToBuffCompress: (
      to: number,
      room: number,
      from: number,
      size: number,
      level: number,
      verbosity: number,
      work: number,
    ) => number;
    readonly _BZ2_bzBuffToBuffDecompress: (
      to: number,
      room: number,
      from: number,
      size: number,
      small: number,
      verbosity: number,
    ) => number;
  };
  export default class BZip2 {
    readonly wasmModule: BZip2Module;
    init(): Promise<void>;
  }
}
