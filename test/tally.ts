/** Sums of passed and failed checks, and how vitest's JSON report counts into them. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';

export type Tally = { passed: number; failed: number };

/** With CI=true nothing may be left out. */
export const strict = process.env['CI'] === 'true';

const vitestReport = z.object({
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numTodoTests: z.number(),
  testResults: z.array(
    z.object({ name: z.string(), status: z.string(), assertionResults: z.array(z.unknown()) }),
  ),
});

export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** A file that could not be loaded counts as one failure; a skipped test counts only with CI=true. */
export function addReport(tally: Tally, file: string): void {
  let report: z.infer<typeof vitestReport>;
  try {
    report = vitestReport.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch (error) {
    say(`== vitest left no report that can be read: ${String(error)}`);
    tally.failed += 1;
    return;
  }
  const notLoaded = report.testResults.filter(
    (suite) => suite.status === 'failed' && suite.assertionResults.length === 0,
  );
  const skipped = report.numPendingTests + report.numTodoTests;
  tally.passed += report.numPassedTests;
  tally.failed += report.numFailedTests + notLoaded.length;
  if (skipped === 0) return;
  say(`== ${skipped} tests were skipped${strict ? ': they count as failed, since CI=true' : ''}`);
  if (strict) tally.failed += skipped;
}
