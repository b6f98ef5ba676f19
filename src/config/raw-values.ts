/**
 * What the files say, before any meaning: which texts an option has, and where (oslo_config/cfg.py `_get_file_value`).
 * A later file wins over an earlier one, a later line over an earlier one; within one file the option's own name wins over
 * its older ones. Section names are compared without case, but for DEFAULT.
 */
import type { ConfigFile } from './config-files.ts';
import type { Assignment } from './ini-parser.ts';
import type { Option } from './option.ts';

export type FileLine = { readonly file: string; readonly line: number };

export type Found = {
  /** Oldest first; only the one in force unless the option accumulates. */
  readonly texts: readonly string[];
  /** The line in force. */
  readonly source: FileLine;
};

export type PlacedAssignment = Assignment & { readonly file: string };

export type RawValues = {
  find(section: string, name: string, option: Option<unknown>): Found | undefined;
  /** The text in force of a name of which nothing is known. */
  findUnknown(section: string, name: string): string | undefined;
  /** Every assignment of a section, in order. */
  assignments(section: string): readonly PlacedAssignment[];
  hasSection(section: string): boolean;
};

export function createRawValues(files: readonly ConfigFile[]): RawValues {
  const newestFirst = files.toReversed();

  return {
    find(section, name, option) {
      const places = [
        { section, name },
        ...option.aliases.map((alias) => ({ section: alias.group ?? section, name: alias.name ?? name })),
      ];
      const texts: string[] = [];
      let source: FileLine | undefined;
      for (const file of newestFirst) {
        for (const place of places) {
          const found = given(file, place.section, place.name);
          const last = found.at(-1);
          if (last === undefined) continue;
          source ??= { file: file.path, line: last.line };
          if (!option.type.accumulates) return { texts: [last.value], source };
          texts.unshift(...found.map(({ value }) => value));
        }
      }
      return source === undefined ? undefined : { texts, source };
    },
    findUnknown(section, name) {
      return newestFirst
        .map((file) => given(file, section, name).at(-1)?.value)
        .find((value) => value !== undefined);
    },
    assignments: (section) =>
      files.flatMap((file) =>
        file.assignments
          .filter((one) => isSameSection(one.section, section))
          .map((one) => ({ ...one, file: file.path })),
      ),
    hasSection: (section) => files.some((file) => file.sections.some((name) => isSameSection(name, section))),
  };
}

function given(file: ConfigFile, section: string, name: string): readonly Assignment[] {
  return file.assignments.filter((one) => isSameSection(one.section, section) && one.key === name);
}

function isSameSection(one: string, other: string): boolean {
  if (one === 'DEFAULT' || other === 'DEFAULT') return one === other;
  return one.toLowerCase() === other.toLowerCase();
}
