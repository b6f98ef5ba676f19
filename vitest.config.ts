import { defineConfig } from 'vitest/config';

const shared = {
  testTimeout: 30_000,
  hookTimeout: 60_000,
  // One second, the default, is too short for a machine that does something else.
  expect: { poll: { timeout: 20_000 } },
};

/** It makes volume groups on a whole disk: there is such a project only where `npm run test:lvm` names one. */
const lvm = {
  test: {
    ...shared,
    name: 'lvm',
    include: ['test/lvm/**/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
};

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/{interop,integration,e2e,lvm}/**'],
        },
      },
      {
        // Real programs (Cinder's drivers, servers, kill -9): minutes, so one file at a time.
        test: {
          ...shared,
          name: 'integration',
          include: ['test/{interop,integration,e2e}/**/*.test.ts'],
          exclude: ['test/e2e/openstack/**'],
          testTimeout: 600_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
      {
        // A whole Cinder, started once for all files; see test/stage.
        test: {
          ...shared,
          name: 'e2e',
          include: ['test/e2e/openstack/**/*.test.ts'],
          globalSetup: ['test/e2e/openstack/stage-setup.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
      ...(process.env['GUEST_DISK'] === undefined ? [] : [lvm]),
    ],
  },
});
