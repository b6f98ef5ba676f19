/** The text of deploy/cinder-delta.conf.sample: [delta], each option with its help and its default, commented out. */
import type { Option, OptionTable } from './option.ts';

const width = 90;

export function renderSample(section: string, table: OptionTable): string {
  const head = [
    '# Options of cinder-delta itself. They stand in cinder.conf, or in a file of their own that is given',
    '# after it: --config-file /etc/cinder/cinder.conf --config-file /etc/cinder/cinder-delta.conf',
    '# All of them are optional. Every other option is one of Cinder: cinder-delta check-config shows them.',
    '',
    `[${section}]`,
  ];
  const body = Object.entries(table).flatMap(([name, option]) => ['', ...renderOption(name, option)]);
  return [...head, ...body, ''].join('\n');
}

function renderOption(name: string, { help, type, defaultText }: Option<unknown>): string[] {
  const value = defaultText ?? '';
  return [...wrap(`${help ?? ''} (${type.name})`), `#${name} = ${value}`.trimEnd()];
}

function wrap(text: string): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.at(-1) ?? '';
    if (last.length + word.length + 3 > width) lines.push(word);
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`;
  }
  return lines.map((line) => `# ${line}`);
}
