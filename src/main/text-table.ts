/** Tables and quantities as lines of text, for the demo and the bench. */

/** Lines of aligned columns: the first column to the left, all others to the right; a rule under the head. */
export function textTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]) =>
    widths
      .map((width, column) =>
        column === 0 ? (cells[0] ?? '').padEnd(width) : (cells[column] ?? '').padStart(width),
      )
      .join('  ')
      .trimEnd();
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

/** Bytes in MiB, with a decimal below 100: `41.0 MiB`; in GiB from 10 GiB on. */
export function showBytes(bytes: number): string {
  const mib = bytes / 1024 ** 2;
  if (mib >= 10 * 1024) return `${(mib / 1024).toFixed(1)} GiB`;
  return `${mib.toFixed(mib < 100 ? 1 : 0)} MiB`;
}

/** Seconds with as many decimals as mean something: `0.14 s`, `12.5 s`. */
export function showSeconds(seconds: number): string {
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** How many times `part` goes into `whole`: `12.3x`. */
export function showRatio(whole: number, part: number): string {
  return part === 0 ? '-' : `${(whole / part).toFixed(whole / part < 10 ? 2 : 1)}x`;
}
