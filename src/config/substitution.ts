/**
 * References inside values: `$name`, `${name}`, `$group.name`, `${group.name}`; `$$` and `\$` give one dollar sign
 * (oslo_config/cfg.py `_substitute` over Python's `string.Template`). A dollar sign that starts no name stays.
 */

export type Lookup = (reference: string) => string;

const pattern = /\$(?:(\$)|([_a-z][._a-z0-9]*)|\{([_a-z][._a-z0-9]*)\})/giu;

/** `text` with every reference replaced by what `lookup` returns for it. */
export function substitute(text: string, lookup: Lookup): string {
  return text
    .replaceAll('\\$', '$$$$')
    .replace(pattern, (_match, escaped?: string, named?: string, braced?: string) =>
      escaped === undefined ? lookup(named ?? braced ?? '') : '$',
    );
}
