/** A worker for the test of the thread pool that takes long to load, and leaves a file when it has loaded. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';
import { serveJobs } from '../../src/agent/thread-jobs.ts';

await setTimeout(300);
writeFileSync(join(process.env['POOL_WORKER_LOADED'] ?? '', String(threadId)), '');
serveJobs(() => ({ result: null }));
