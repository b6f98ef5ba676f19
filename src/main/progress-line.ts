/** A progress bar that redraws itself on a terminal, and a plain line now and then everywhere else. */

const barCells = 30;
const plainStep = 0.25;

export type ProgressLine = {
  /** `part` is how much is done, 0 to 1; `note` stands behind the bar. */
  update(part: number, note: string): void;
  /** Draws the bar full and ends the line. */
  end(note: string): void;
};

/** Writes to `stream` under `title`. */
export function createProgressLine(stream: NodeJS.WriteStream, title: string): ProgressLine {
  let plainNext = plainStep;

  const draw = (part: number, note: string) => {
    const full = Math.round(Math.min(1, part) * barCells);
    const percent = `${Math.floor(Math.min(1, part) * 100)}`.padStart(3);
    return `${title.padEnd(22)} [${'#'.repeat(full)}${'.'.repeat(barCells - full)}] ${percent} %  ${note}`;
  };

  return {
    update(part, note) {
      if (stream.isTTY) {
        stream.write(`\r${draw(part, note)}\u001b[K`);
      } else if (part >= plainNext && part < 1) {
        while (plainNext <= part) plainNext += plainStep;
        stream.write(`${draw(part, note)}\n`);
      }
    },
    end(note) {
      stream.write(`${stream.isTTY ? '\r' : ''}${draw(1, note)}${stream.isTTY ? '\u001b[K' : ''}\n`);
    },
  };
}
