/**
 * Options as data. A table maps names, as they stand in the file, to options; the TypeScript type of what is
 * read follows from the table. An option with a default always has a value; one without may be undefined.
 */
import {
  booleanType,
  choiceType,
  integerType,
  listType,
  multiStringType,
  numberType,
  portType,
  stringType,
  uriType,
  type Bounds,
  type ValueType,
} from './value-types.ts';

/** An older name of an option (oslo's `deprecated_opts`); what is left out is as in the option itself. */
export type Alias = { readonly group?: string; readonly name?: string };

export type Option<T> = {
  readonly type: ValueType<Exclude<T, undefined>>;
  /** As it would stand in a file, `$` references included. */
  readonly defaultText: string | undefined;
  readonly secret: boolean;
  readonly aliases: readonly Alias[];
  /** For the sample: whole sentences. */
  readonly help: string | undefined;
};

export type OptionTable = Readonly<Record<string, Option<unknown>>>;

/** The values of a table: what `Settings.read` returns. */
export type ValuesOf<T extends OptionTable> = {
  readonly [Name in keyof T]: T[Name] extends Option<infer Value> ? Value : never;
};

type Extras = {
  readonly secret?: boolean;
  readonly aliases?: readonly Alias[];
  readonly help?: string;
};

type WithDefault<T> = Extras & { readonly default: T };

function option<T>(
  type: ValueType<Exclude<T, undefined>>,
  defaultText: string | undefined,
  extras: Extras,
): Option<T> {
  return {
    type,
    defaultText,
    secret: extras.secret ?? false,
    aliases: extras.aliases ?? [],
    help: extras.help,
  };
}

export function text(extras: WithDefault<string>): Option<string>;
export function text(extras?: Extras): Option<string | undefined>;
export function text(
  extras: Extras & { default?: string } = {},
): Option<string> | Option<string | undefined> {
  return option<string>(stringType, extras.default, extras);
}

export function choice(
  choices: readonly string[],
  extras: WithDefault<string> & { ignoreCase?: boolean },
): Option<string> {
  return option<string>(choiceType(choices, extras.ignoreCase ?? false), extras.default, extras);
}

export function uri(extras: Extras = {}): Option<string | undefined> {
  return option<string | undefined>(uriType, undefined, extras);
}

export function flag(extras: WithDefault<boolean>): Option<boolean> {
  return option<boolean>(booleanType, String(extras.default), extras);
}

export function integer(extras: WithDefault<number> & Bounds): Option<number>;
export function integer(extras?: Extras & Bounds): Option<number | undefined>;
export function integer(
  extras: Extras & Bounds & { default?: number } = {},
): Option<number> | Option<number | undefined> {
  return option<number>(integerType(extras), extras.default?.toString(), extras);
}

export function number(extras: WithDefault<number> & Bounds): Option<number> {
  return option<number>(numberType(extras), String(extras.default), extras);
}

export function port(extras: WithDefault<number>): Option<number> {
  return option<number>(portType, String(extras.default), extras);
}

export function list(extras: WithDefault<readonly string[]>): Option<readonly string[]> {
  return option<readonly string[]>(listType, extras.default.join(','), extras);
}

export function multiString(extras: Extras = {}): Option<readonly string[]> {
  return option<readonly string[]>(multiStringType, undefined, extras);
}
