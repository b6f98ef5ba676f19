/**
 * `npm run test:lvm`: the tests of LVM thin pools, in a virtual machine, since neither a container nor every kernel has the
 * device mapper. What is missing of Debian's packages is installed, as root. The last line is `N passed, N failed`.
 *
 * Arguments go to vitest (`npm run test:lvm -- test/lvm/lvm-backend.test.ts -t snapshot`). With CI=true a skipped test counts as failed.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installPackages, packageState } from '../debian-packages.ts';
import { addReport, say, type Tally } from '../tally.ts';
import { runInGuest } from './guest.ts';
import { guestPlaces } from './initramfs.ts';
import { guestPackages } from './packages.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const reportFile = 'report.json';
/** The only disk, so /dev/vda. */
const diskBytes = 4 * 1024 ** 3;
const timeoutMs = 30 * 60_000;

function environment(): Readonly<Record<string, string>> {
  const passedOn = ['CI', 'NO_COLOR', 'FORCE_COLOR'].flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return {
    PATH: `${dirname(process.execPath)}:/usr/sbin:/usr/bin:/sbin:/bin`,
    LANG: 'C.UTF-8',
    GUEST_DISK: '/dev/vda',
    ...Object.fromEntries(passedOn),
  };
}

async function runTests(tally: Tally, extra: readonly string[], signal: AbortSignal): Promise<void> {
  const share = await mkdtemp(join(tmpdir(), 'cinder-delta-test-'));
  try {
    const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
    const reporters = [
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${join(guestPlaces.share, reportFile)}`,
    ];
    const code = await runInGuest({
      directory: root,
      argv: [process.execPath, vitest, 'run', '--project', 'lvm', ...reporters, ...extra],
      environment: environment(),
      disks: [{ sizeBytes: diskBytes }],
      share,
      timeoutMs,
      signal,
      onOutput: (piece) => process.stdout.write(piece),
    });
    addReport(tally, join(share, reportFile));
    if (code !== 0 && tally.failed === 0) {
      say('== vitest failed outside of any test: see above');
      tally.failed += 1;
    }
  } finally {
    await rm(share, { recursive: true, force: true });
  }
}

/** Null if it can run here. */
function obstacle(): string | null {
  if (process.arch !== 'x64') return `the guest is an x86-64 machine, and Node here is for ${process.arch}`;
  const { missing, installCommand } = installPackages(packageState(guestPackages));
  if (missing.length === 0) return null;
  return `Debian packages are missing: ${missing.join(', ')}. As root, run:\n   ${installCommand}`;
}

async function main(): Promise<Tally> {
  const tally: Tally = { passed: 0, failed: 0 };
  const why = obstacle();
  if (why !== null) {
    say(`== ${why}`);
    return { passed: 0, failed: 1 };
  }
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => stop.abort(new Error(`stopped by ${name}`)));
  }
  say('== starting the guest');
  try {
    await runTests(tally, process.argv.slice(2), stop.signal);
  } catch (error) {
    say(`== ${error instanceof Error ? error.message : String(error)}`);
    tally.failed += 1;
  }
  if (tally.passed + tally.failed === 0) {
    say('== no test was found');
    tally.failed += 1;
  }
  return tally;
}

const { passed, failed } = await main();
say(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
