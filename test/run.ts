/**
 * What `npm test` runs: everything that has to hold. The types, the lint, the format, and all tests; its last
 * line is `N passed, N failed`, where each of the first three counts as one.
 *
 * Arguments go to vitest (`npm test -- test/layout`). With CI=true a skipped test counts as failed, and so does
 * a Debian package that is missing and cannot be installed.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installPackages, packageState } from './debian-packages.ts';
import { addReport, say, strict, type Tally } from './tally.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const binaries = join(root, 'node_modules', '.bin');
const env = { ...process.env, PATH: `${binaries}${delimiter}${process.env['PATH'] ?? ''}` };

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
