import { defineConfig } from 'vitest/config';

const shared = { testTimeout: 30_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/{interop,integration,e2e}/**'],
        },
      },
      {
        // Real programs (Cinder's drivers, servers, kill -9): minutes, so one file at a time.
        test: {
          ...shared,
          name: 'integration',
          include: ['test/{interop,integration,e2e}/**/*.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
