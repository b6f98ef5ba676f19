/**
 * The types of option values, as oslo_config/types.py converts them from text. A type gets every text that was
 * given for its option, oldest first; all but `multiString` look at the last one only.
 */
import { strip } from './ini-parser.ts';

export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  /** What the value must be: the end of a sentence that starts with the option. */
  | { readonly ok: false; readonly expected: string };

export type ValueType<T> = {
  /** For the sample and for `check-config`. */
  readonly name: string;
  /** True if the values of all files count, and not only the last. */
  readonly accumulates: boolean;
  parse(texts: readonly string[]): Parsed<T>;
  /** Python's `str(value)`: what a `$` reference to the option becomes. */
  format(value: T): string;
};

const ok = <T>(value: T): Parsed<T> => ({ ok: true, value });
const mustBe = (expected: string): Parsed<never> => ({ ok: false, expected });

function single<T>(
  name: string,
  parse: (text: string) => Parsed<T>,
  format: (value: T) => string,
): ValueType<T> {
  return { name, accumulates: false, parse: (texts) => parse(texts.at(-1) ?? ''), format };
}

export const stringType: ValueType<string> = single('string', ok, String);

/** One of `choices`; `ignoreCase` compares without case, and keeps the spelling of the file. */
export function choiceType(choices: readonly string[], ignoreCase = false): ValueType<string> {
  const known = new Set(ignoreCase ? choices.map((choice) => choice.toLowerCase()) : choices);
  return single(
    choices.join(' | '),
    (text) =>
      known.has(ignoreCase ? text.toLowerCase() : text) ? ok(text) : mustBe(`one of ${choices.join(', ')}`),
    String,
  );
}

const truths = new Map([
  ...['true', '1', 'on', 'yes'].map((word) => [word, true] as const),
  ...['false', '0', 'off', 'no'].map((word) => [word, false] as const),
]);

export const booleanType: ValueType<boolean> = single(
  'boolean',
  (text) => {
    const value = truths.get(text.toLowerCase());
    return value === undefined ? mustBe('true or false (also 1/0, yes/no, on/off)') : ok(value);
  },
  (value) => (value ? 'True' : 'False'),
);

export type Bounds = { readonly min?: number; readonly max?: number };

function describeBounds(what: string, { min, max }: Bounds): string {
  if (min !== undefined && max !== undefined) return `${what} from ${min} to ${max}`;
  if (min !== undefined) return `${what} of at least ${min}`;
  return max === undefined ? what : `${what} of at most ${max}`;
}

function isWithin(value: number, { min, max }: Bounds): boolean {
  return (min === undefined || value >= min) && (max === undefined || value <= max);
}

/** Python's `int(text)` within bounds; a safe integer. */
export function integerType(bounds: Bounds = {}): ValueType<number> {
  const expected = describeBounds('an integer', bounds);
  return single(
    'integer',
    (text) => {
      const digits = strip(text);
      if (!/^[+-]?[0-9]+(?:_[0-9]+)*$/u.test(digits)) return mustBe(expected);
      const value = Number(digits.replaceAll('_', ''));
      return Number.isSafeInteger(value) && isWithin(value, bounds) ? ok(value) : mustBe(expected);
    },
    String,
  );
}

/** Python's `float(text)` within bounds, without its infinities. */
export function numberType(bounds: Bounds = {}): ValueType<number> {
  const expected = describeBounds('a number', bounds);
  return single(
    'number',
    (text) => {
      const digits = strip(text);
      const form =
        /^[+-]?(?:[0-9]+(?:_[0-9]+)*\.?(?:[0-9]+(?:_[0-9]+)*)?|\.[0-9]+(?:_[0-9]+)*)(?:e[+-]?[0-9]+(?:_[0-9]+)*)?$/iu;
      if (!form.test(digits)) return mustBe(expected);
      const value = Number(digits.replaceAll('_', ''));
      return Number.isFinite(value) && isWithin(value, bounds) ? ok(value) : mustBe(expected);
    },
    pythonFloat,
  );
}

/** Python's `repr` of a finite float: the same shortest digits, with an exponent of two digits below 1e-4 and from 1e16 on. */
function pythonFloat(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    return value.toExponential().replace(/e([+-])(\d)$/u, 'e$10$2');
  }
  if (Object.is(value, -0)) return '-0.0';
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

export const portType: ValueType<number> = { ...integerType({ min: 0, max: 65535 }), name: 'port' };

/** Items between commas, without spaces round them; quotes are kept, trailing commas are not. */
export const listType: ValueType<readonly string[]> = single(
  'list',
  (text) => {
    const items = strip(text).replace(/,+$/u, '');
    return ok(items === '' ? [] : items.split(',').map(strip));
  },
  (items) => `[${items.map(pythonString).join(', ')}]`,
);

/** One value for each time the option is given, in all files. */
export const multiStringType: ValueType<readonly string[]> = {
  name: 'string (may be given several times)',
  accumulates: true,
  parse: (texts) => ok([...texts]),
  format: (items) => `[${items.map(pythonString).join(', ')}]`,
};

/** A URI with scheme and host (RFC 3986). */
export const uriType: ValueType<string> = single(
  'URI',
  (text) =>
    /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@\s[\]]*@)?(?:\[[0-9a-f:.]+\]|[^/?#@:\s[\]]+)(?::[0-9]*)?(?:[/?#]\S*)?$/iu.test(
      text,
    )
      ? ok(text)
      : mustBe('a URI such as https://host:8080/path'),
  String,
);

/** Python's `repr` of a string: what does not print is escaped. */
function pythonString(text: string): string {
  const escaped = text.replaceAll('\\', String.raw`\\`).replace(/[\p{C}\p{Z}]/gu, escapeUnprintable);
  if (escaped.includes("'") && !escaped.includes('"')) return `"${escaped}"`;
  return `'${escaped.replaceAll("'", String.raw`\'`)}'`;
}

const shortEscapes: Readonly<Record<string, string>> = {
  ' ': ' ',
  '\n': String.raw`\n`,
  '\r': String.raw`\r`,
  '\t': String.raw`\t`,
};

function escapeUnprintable(character: string): string {
  const short = shortEscapes[character];
  if (short !== undefined) return short;
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  if (code < 0x100) return String.raw`\x${hex.padStart(2, '0')}`;
  return code < 0x10000 ? String.raw`\u${hex.padStart(4, '0')}` : String.raw`\U${hex.padStart(8, '0')}`;
}
