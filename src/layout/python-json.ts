/** JSON text as Python's `json.dumps(..., sort_keys=True, indent=2)` writes it (CPython Lib/json/encoder.py, ensure_ascii). */

/** A JSON string: everything outside printable ASCII escaped, in lower-case hex. */
export function pythonString(text: string): string {
  if (/^[ !#-[\]-~]*$/.test(text)) return `"${text}"`;
  return JSON.stringify(text).replaceAll(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** A JSON string, or `null`. */
export function jsonText(text: string | null): string {
  return text === null ? 'null' : pythonString(text);
}

/** A JSON value; `depth` is the nesting of the line that it begins on. Keys are sorted by code point. */
export function pythonJson(value: unknown, depth = 0): string {
  if (typeof value === 'string') return pythonString(value);
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const inner = '  '.repeat(depth + 1);
  const lines = Array.isArray(value)
    ? value.map((item) => inner + pythonJson(item, depth + 1))
    : Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .toSorted(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
        .map(([key, item]) => `${inner}${pythonString(key)}: ${pythonJson(item, depth + 1)}`);
  const [opening, closing] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  if (lines.length === 0) return opening + closing;
  return `${opening}\n${lines.join(',\n')}\n${'  '.repeat(depth)}${closing}`;
}

/** A JSON value on one line as Python's `json.dumps` writes it by default; keys keep their order. */
export function pythonJsonLine(value: unknown): string {
  if (typeof value === 'string') return pythonString(value);
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map(pythonJsonLine).join(', ')}]`;
  const items = Object.entries(value).filter(([, item]) => item !== undefined);
  return `{${items.map(([key, item]) => `${pythonString(key)}: ${pythonJsonLine(item)}`).join(', ')}}`;
}
