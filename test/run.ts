/**
 * What `npm test` runs: everything that has to hold. The types, the lint, the format, and all tests; its last
 * line is `N passed, N failed`, where each of the first three counts as one.
 *
 * Arguments go to vitest (`npm test -- test/layout`). With CI=true a skipped test counts as failed, and so does
 * a Debian package that is missing and cannot be installed.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { installPackages, packageState } from './debian-packages.ts';

type Tally = { passed: number; failed: number };

const root = fileURLToPath(new URL('..', import.meta.url));
const binaries = join(root, 'node_modules', '.bin');
const env = { ...process.env, PATH: `${binaries}${delimiter}${process.env['PATH'] ?? ''}` };
const strict = process.env['CI'] === 'true';

const vitestReport = z.object({
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numTodoTests: z.number(),
  testResults: z.array(
    z.object({ name: z.string(), status: z.string(), assertionResults: z.array(z.unknown()) }),
  ),
});

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function run(program: string, args: readonly string[]): boolean {
  const done = spawnSync(program, args, { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] });
  if (done.error !== undefined) say(`${program} could not be started: ${done.error.message}`);
  return done.status === 0;
}

function check(tally: Tally, name: string, program: string, args: readonly string[]): void {
  say(`\n== ${name}: ${program} ${args.join(' ')}`);
  const ok = run(program, args);
  tally[ok ? 'passed' : 'failed'] += 1;
  if (!ok) say(`== ${name}: FAILED`);
}

/** The vitest projects that can run here, in runs one after the other; the tally gets what is missing. */
function availableProjects(tally: Tally): readonly (readonly string[])[] {
  const found = packageState();
  if (found.missing.length > 0) say(`\n== Debian packages: ${found.missing.join(', ')} missing`);
  const state = installPackages(found);
  if (state.missing.length === 0) {
    if (process.getuid?.() === 0) return [['unit', 'integration'], ['e2e']];
    say('== THE END-TO-END TESTS ARE LEFT OUT: they need root');
    if (strict) tally.failed += 1;
    return [['unit', 'integration']];
  }
  say(
    `== Debian packages still missing: ${state.missing.join(', ')}. As root, run:\n   ${state.installCommand}`,
  );
  if (strict) tally.failed += 1;
  else
    say(
      '== THE INTEGRATION AND END-TO-END TESTS ARE LEFT OUT, and unit tests that need these packages skip themselves.',
    );
  return [['unit']];
}

function runTests(tally: Tally, projects: readonly string[], extra: readonly string[]): void {
  const folder = mkdtempSync(join(tmpdir(), 'cinder-delta-test-'));
  try {
    const file = join(folder, 'report.json');
    const selected = projects.flatMap((name) => ['--project', name]);
    const reporters = [
      '--passWithNoTests',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${file}`,
    ];
    say(`\n== tests: ${projects.join(', ')}`);
    const ok = run('vitest', ['run', ...selected, ...reporters, ...extra]);
    const before = tally.failed;
    addReport(tally, file);
    if (!ok && tally.failed === before) {
      say('== vitest failed outside of any test: see above');
      tally.failed += 1;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function addReport(tally: Tally, file: string): void {
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

const tally: Tally = { passed: 0, failed: 0 };
const projects = availableProjects(tally);
check(tally, 'types', 'tsc', []);
check(tally, 'lint', 'oxlint', ['--type-aware']);
check(tally, 'format', 'prettier', ['--check', '.']);
const checks = tally.passed + tally.failed;
for (const each of projects) runTests(tally, each, process.argv.slice(2));
if (tally.passed + tally.failed === checks) {
  say('== no test was found');
  tally.failed += 1;
}
say(`\n${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed === 0 ? 0 : 1;
