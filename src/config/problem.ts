/** What is wrong in a configuration: collected, and reported all at once. */
import { BackupError } from '../model/errors.ts';

export type Problem = {
  readonly file?: string | undefined;
  /** Counted from 1. */
  readonly line?: number | undefined;
  readonly section?: string | undefined;
  readonly option?: string | undefined;
  /** As shown: secrets are hidden before they get here. */
  readonly value?: string | undefined;
  /** What is wrong and what to do. */
  readonly reason: string;
};

/** `file:line: [section] option = value: reason`, with what is known. */
export function describeProblem({ file, line, section, option, value, reason }: Problem): string {
  const place = file === undefined ? [] : [line === undefined ? file : `${file}:${line}`];
  const named =
    option === undefined
      ? []
      : [`[${section ?? 'DEFAULT'}] ${option}${value === undefined ? '' : ` = ${value}`}`];
  return [...place, ...named, reason].join(': ');
}

/** Throws `config-invalid` with a line for each problem, if there is one. */
export function throwIfProblems(problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  const lines = problems.map((problem) => `- ${describeProblem(problem)}`);
  const count = problems.length === 1 ? 'one error' : `${problems.length} errors`;
  throw new BackupError('config-invalid', `the configuration has ${count}:\n${lines.join('\n')}`, {
    details: { problems },
  });
}
