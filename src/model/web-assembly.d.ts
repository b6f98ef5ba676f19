/** What is used of WebAssembly (https://webassembly.github.io/spec/js-api/#memories): memory that begins on a page. */
declare namespace WebAssembly {
  class Memory {
    constructor(descriptor: { readonly initial: number; readonly maximum: number; readonly shared: true });
    readonly buffer: SharedArrayBuffer;
  }
}
