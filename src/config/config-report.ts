/** What `cinder-delta check-config` prints: each value in force, and where it comes from. Secrets are hidden. */
import type { Entry } from './settings.ts';

/**
 * The text of the report: a section after the other, `option = value  # file:line` or `# default`. Options at their
 * default are left out unless `all`.
 */
export function renderConfigReport(entries: readonly Entry[], options: { readonly all: boolean }): string {
  const sections = Map.groupBy(lastOf(entries), ({ section }) => section);
  const blocks = [...sections].map(([section, own]) => {
    const shown = own.filter(({ source }) => options.all || source !== 'default');
    return shown.length === 0 ? [] : [`[${section}]`, ...shown.map(renderEntry), ''];
  });
  return blocks.flat().join('\n');
}

function renderEntry({ option, shown, source }: Entry): string {
  const place = source === 'default' ? 'default' : `${source.file}:${source.line}`;
  return `${option} = ${shown ?? '<unset>'}  # ${place}`;
}

/** One entry for each option, where a table was read twice. */
function lastOf(entries: readonly Entry[]): readonly Entry[] {
  return [...new Map(entries.map((entry) => [`${entry.section}\0${entry.option}`, entry])).values()];
}
