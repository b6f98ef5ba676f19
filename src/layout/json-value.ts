/** Builds a small JSON value out of a parser's events. */
import type { JsonScalar } from './json-parser.ts';

export type JsonBuilder = {
  open(kind: 'object' | 'array'): void;
  close(): void;
  key(name: string): void;
  value(value: JsonScalar): void;
  /** The value, once it is whole. */
  readonly result: unknown;
};

type Open = { readonly entries: [string, unknown][]; readonly isArray: boolean; key: string };

/** `tooLarge` makes the error that is thrown when the value has more than `maxNodes` values or `maxTextBytes` of text. */
export function createJsonBuilder(
  maxNodes: number,
  maxTextBytes: number,
  tooLarge: () => Error,
): JsonBuilder {
  const stack: Open[] = [];
  let nodes = 0;
  let textBytes = 0;
  let result: unknown;

  const count = (text: unknown): void => {
    nodes += 1;
    if (typeof text === 'string') textBytes += text.length;
    if (nodes > maxNodes || textBytes > maxTextBytes) throw tooLarge();
  };
  const add = (value: unknown): void => {
    const top = stack.at(-1);
    if (top === undefined) result = value;
    else top.entries.push([top.key, value]);
  };

  return {
    open(kind) {
      count(null);
      stack.push({ entries: [], isArray: kind === 'array', key: '' });
    },
    close() {
      const done = stack.pop();
      if (done === undefined) return;
      // fromEntries defines own properties: a key such as `__proto__` stays a key.
      add(done.isArray ? done.entries.map(([, value]) => value) : Object.fromEntries(done.entries));
    },
    key(name) {
      count(name);
      const top = stack.at(-1);
      if (top !== undefined) top.key = name;
    },
    value(value) {
      count(value);
      add(value);
    },
    get result() {
      return result;
    },
  };
}
