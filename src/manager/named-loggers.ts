/**
 * Loggers under the names of Python's modules, whose levels can be changed while the service runs. A logger hands its level
 * on when it makes a child, so the children that are alive are known and follow.
 */
import type { Logger } from '../log.ts';

export type NamedLoggers = {
  /** The logger of that name; made when it is first asked for, with the level of the root. */
  named(name: string): Logger;
  /** Sets the level of every logger whose name begins with `prefix`, and of all their children. */
  setLevel(prefix: string, level: string): void;
  /** Names that begin with `prefix`, in the order in which they were made, with their levels. */
  levels(prefix: string): readonly { readonly name: string; readonly level: string }[];
};

type Family = { readonly logger: Logger; readonly children: Set<WeakRef<Logger>> };

/** Children are looked through for those that are gone when there are twice as many as were left the last time. */
const fewChildren = 64;

export function createNamedLoggers(root: Logger): NamedLoggers {
  const families = new Map<string, Family>();

  const matching = (prefix: string): readonly (readonly [string, Family])[] =>
    Array.from(families).filter(([name]) => name.startsWith(prefix));

  return {
    named(name) {
      const known = families.get(name);
      if (known !== undefined) return known.logger;
      const family = { logger: root.child({ logger: name }), children: new Set<WeakRef<Logger>>() };
      let look = fewChildren;
      family.logger.onChild = (child) => {
        family.children.add(new WeakRef(child));
        if (family.children.size < look) return;
        living(family);
        look = Math.max(fewChildren, 2 * family.children.size);
      };
      families.set(name, family);
      return family.logger;
    },
    setLevel(prefix, level) {
      for (const [, family] of matching(prefix)) {
        for (const logger of [family.logger, ...living(family)]) logger.level = level;
      }
    },
    levels: (prefix) => matching(prefix).map(([name, { logger }]) => ({ name, level: logger.level })),
  };
}

/** The children that are still in use; the others are forgotten. */
function living({ children }: Family): readonly Logger[] {
  const alive: Logger[] = [];
  for (const reference of children) {
    const child = reference.deref();
    if (child === undefined) children.delete(reference);
    else alive.push(child);
  }
  return alive;
}
