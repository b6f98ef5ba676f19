/**
 * The syntax of oslo.config's files (oslo_config/iniparser.py), which is not that of other INI readers:
 * a section `[name]`; `key = value` or `key: value`, whichever sign comes first; a line that starts with a space or
 * tab continues the value above it (joined by a newline) until an empty line, comment or section; comments (`#`, `;`)
 * only at the start of a line; one pair of matching quotes round a value is dropped; a repeated key adds a value.
 *
 * Python stops at the first bad line; this parser reports every one. Whitespace is what Python's `str.strip` takes for it.
 */

export type Assignment = {
  readonly section: string;
  readonly key: string;
  readonly value: string;
  /** Line of the key, counted from 1. */
  readonly line: number;
};

export type SyntaxProblem = { readonly line: number; readonly reason: string };

export type ParsedIni = {
  /** In the order of the file. */
  readonly assignments: readonly Assignment[];
  readonly sections: readonly string[];
  readonly problems: readonly SyntaxProblem[];
};

const space = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const leading = new RegExp(`^${space}+`, 'u');
const trailing = new RegExp(`${space}+$`, 'u');

/** Python's `str.strip()`. */
export function strip(text: string): string {
  return text.replace(leading, '').replace(trailing, '');
}

type Open = { readonly key: string; readonly line: number; readonly lines: string[] };

/** Parses the text of one file. Never throws: what cannot be read is in `problems`. */
export function parseIni(text: string): ParsedIni {
  const assignments: Assignment[] = [];
  const sections = new Set<string>();
  const problems: SyntaxProblem[] = [];
  let section: string | undefined;
  let open: Open | undefined;

  const flush = () => {
    if (open === undefined) return;
    const { key, line, lines } = open;
    open = undefined;
    if (section === undefined) {
      problems.push({ line, reason: 'a section such as [DEFAULT] must come before this option' });
    } else {
      assignments.push({ section, key, value: lines.join('\n'), line });
    }
  };

  for (const [index, raw] of text.split(/\r\n|\r|\n/u).entries()) {
    const line = index + 1;
    const content = raw.replace(trailing, '');
    if (content === '') {
      flush();
      continue;
    }
    if (content.startsWith(' ') || content.startsWith('\t')) {
      if (open === undefined) {
        problems.push({
          line,
          reason: 'a line that starts with a space continues an option, but none is above it',
        });
      } else {
        open.lines.push(content.replace(leading, ''));
      }
      continue;
    }
    flush();
    if (content.startsWith('[')) {
      const name = sectionName(content);
      if (name === undefined) {
        problems.push({ line, reason: 'a section is written [name]' });
      } else {
        section = name;
        sections.add(name);
      }
    } else if (!content.startsWith('#') && !content.startsWith(';')) {
      const pair = keyAndValue(content);
      if (pair === undefined) {
        problems.push({ line, reason: 'an option is written "name = value"' });
      } else {
        open = { key: pair.key, line, lines: [pair.value] };
      }
    }
  }
  flush();
  return { assignments, sections: [...sections], problems };
}

function sectionName(content: string): string | undefined {
  return content.endsWith(']') && content.length > 2 ? content.slice(1, -1) : undefined;
}

function keyAndValue(content: string): { readonly key: string; readonly value: string } | undefined {
  const at = content.search(/[:=]/u);
  if (at < 0) return undefined;
  const key = strip(content.slice(0, at));
  if (key === '') return undefined;
  const value = strip(content.slice(at + 1));
  const quoted = (value.startsWith('"') || value.startsWith("'")) && value.endsWith(value.slice(0, 1));
  return { key, value: quoted ? value.slice(1, -1) : value };
}
