/**
 * The values in force: what the files say for the options of a table, else the default, with references
 * replaced and types converted (oslo_config/cfg.py `_do_get`). Reading never throws: problems are collected, a value
 * that cannot be used is replaced by its default, and the caller stops when all tables have been read.
 */
import { BackupError, isBackupError } from '../model/errors.ts';
import type { ConfigFile } from './config-files.ts';
import type { Option, OptionTable, ValuesOf } from './option.ts';
import type { Problem } from './problem.ts';
import { createRawValues, type FileLine, type RawValues } from './raw-values.ts';
import { substitute } from './substitution.ts';

/** A value in force, and where it comes from. */
export type Entry = {
  readonly section: string;
  readonly option: string;
  /** As it is in force, references replaced; `[secret]` where it is one; undefined if there is no value. */
  readonly shown: string | undefined;
  readonly source: FileLine | 'default';
};

export type Settings = {
  /**
   * The values of `table` in `section`. With `fallback`, an option that the section does not give is taken from that
   * section (as Cinder's back ends fall back to `backend_defaults`).
   */
  read<T extends OptionTable>(section: string, table: T, fallback?: string): ValuesOf<T>;
  /** Adds a problem of an option that was read before: file, line and value are filled in. */
  reject(section: string, option: string, reason: string): void;
  readonly raw: RawValues;
  readonly problems: Problem[];
  readonly warnings: string[];
  /** Everything that was read, in the order of reading. */
  readonly entries: readonly Entry[];
};

type Usable = { readonly value: unknown; readonly texts: readonly string[] };

/** The references that led here: what each is to, as section/name, and how it is written. */
type Visited = ReadonlyMap<string, string>;

export const hiddenSecret = '[secret]';

/** Settings over `files`. `tables` are those whose options a `$` reference may name, by section. */
export function createSettings(
  files: readonly ConfigFile[],
  tables: Readonly<Record<string, OptionTable>>,
): Settings {
  const raw = createRawValues(files);
  const problems: Problem[] = [];
  const entries: Entry[] = [];

  /** What `$reference` stands for in `section`, as Python would print it. Throws `config-invalid`. */
  function resolve(reference: string, section: string, visited: Visited): string {
    const dot = reference.indexOf('.');
    const owner = reference.slice(0, dot);
    // oslo.config has no section DEFAULT to refer to: only a name without one reaches it.
    const places =
      dot < 0
        ? [section, 'DEFAULT'].map((one) => ({ owner: one, name: reference }))
        : owner === 'DEFAULT'
          ? []
          : [{ owner, name: reference.slice(dot + 1) }];
    for (const place of places) {
      const key = placeOf(place.owner, place.name);
      if (visited.has(key)) {
        const circle = [...visited.values(), reference].map((name) => `$${name}`).join(' → ');
        throw new BackupError('config-invalid', `it refers to itself: ${circle}`);
      }
      const value = resolveIn(place.owner, place.name, new Map([...visited, [key, reference]]));
      if (value !== undefined) return value;
    }
    throw new BackupError('config-invalid', `$${reference} names no option; write $$ for a dollar sign`);
  }

  function resolveIn(section: string, name: string, visited: Visited): string | undefined {
    const expand = (text: string) => substitute(text, (inner) => resolve(inner, section, visited));
    const option = optionOf(tables[section], name);
    if (option === undefined) {
      const text = raw.findUnknown(section, name);
      return text === undefined ? undefined : expand(text);
    }
    const texts = (raw.find(section, name, option)?.texts ?? defaultTexts(option)).map(expand);
    // An empty number is refused where it stands; a reference to it is empty, as in oslo.config.
    if (hasNoValue(option, texts) || isEmptyNumber(option, texts)) return '';
    const parsed = option.type.parse(texts);
    if (parsed.ok) return option.type.format(parsed.value);
    throw new BackupError('config-invalid', `$${name}, which it refers to, must be ${parsed.expected}`);
  }

  /** The value of `texts`. Throws `config-invalid`: the message is the end of a sentence about the option. */
  function convert(section: string, name: string, option: Option<unknown>, texts: readonly string[]): Usable {
    const start = new Map([[placeOf(section, name), name]]);
    const expanded = texts.map((text) => substitute(text, (reference) => resolve(reference, section, start)));
    if (hasNoValue(option, expanded)) return { value: undefined, texts: [] };
    const parsed = option.type.parse(expanded);
    if (parsed.ok) return { value: parsed.value, texts: expanded };
    throw new BackupError('config-invalid', `it must be ${parsed.expected}`);
  }

  /** As `convert`, or `instead()` after noting the problem. */
  function convertOr(
    section: string,
    name: string,
    option: Option<unknown>,
    given: { readonly texts: readonly string[]; readonly source?: FileLine },
    instead: () => Usable,
  ): Usable {
    try {
      return convert(section, name, option, given.texts);
    } catch (error) {
      if (!isBackupError(error, 'config-invalid')) throw error;
      const value = given.texts.map((text) => show(option, text)).join(', ');
      problems.push({ ...given.source, section, option: name, value, reason: error.message });
      return instead();
    }
  }

  function readOne(section: string, name: string, option: Option<unknown>, fallback?: string): unknown {
    const found =
      raw.find(section, name, option) ??
      (fallback === undefined ? undefined : raw.find(fallback, name, option));
    const unexpanded = (): Usable => {
      const parsed = option.type.parse(defaultTexts(option));
      return { value: parsed.ok ? parsed.value : undefined, texts: defaultTexts(option) };
    };
    const usual = () => convertOr(section, name, option, { texts: defaultTexts(option) }, unexpanded);
    const { value, texts } = found === undefined ? usual() : convertOr(section, name, option, found, usual);
    const shown = texts.length === 0 ? undefined : texts.map((text) => show(option, text)).join(', ');
    entries.push({ section, option: name, shown, source: found?.source ?? 'default' });
    return value;
  }

  return {
    raw,
    problems,
    warnings: [],
    entries,
    reject(section, name, reason) {
      const entry = entries.findLast((one) => one.section === section && one.option === name);
      const place = entry === undefined || entry.source === 'default' ? {} : entry.source;
      problems.push({ ...place, section, option: name, value: entry?.shown, reason });
    },
    read<T extends OptionTable>(section: string, table: T, fallback?: string) {
      const values = Object.entries(table).map(
        ([name, option]) => [name, readOne(section, name, option, fallback)] as const,
      );
      // What each option's type yields is what ValuesOf derives from the same table.
      return Object.fromEntries(values) as ValuesOf<T>;
    },
  };
}

function placeOf(section: string, name: string): string {
  return `${section}/${name}`;
}

function defaultTexts(option: Option<unknown>): readonly string[] {
  return option.defaultText === undefined ? [] : [option.defaultText];
}

/** oslo reads an empty number as "no value"; that is a value only where no default says otherwise. */
function hasNoValue(option: Option<unknown>, texts: readonly string[]): boolean {
  if (option.type.accumulates) return false;
  return texts.length === 0 || (option.defaultText === undefined && isEmptyNumber(option, texts));
}

function isEmptyNumber(option: Option<unknown>, texts: readonly string[]): boolean {
  return ['integer', 'number', 'port'].includes(option.type.name) && (texts.at(-1) ?? '').trim() === '';
}

function show(option: Option<unknown>, text: string): string {
  if (option.secret) return hiddenSecret;
  const printable = JSON.stringify(text).slice(1, -1);
  return printable.length > 200 ? `${printable.slice(0, 200)}…` : printable;
}

function optionOf(table: OptionTable | undefined, name: string): Option<unknown> | undefined {
  if (table === undefined) return undefined;
  if (Object.hasOwn(table, name)) return table[name];
  return Object.values(table).find((option) => option.aliases.some((alias) => alias.name === name));
}
