#!/usr/bin/env node
/**
 * The entry of the program. Before anything is loaded: the right Node (an older one comes silently where optional
 * packages are left out), and room in libuv's pool, which is sized when it is first used.
 */
// oxlint-disable-next-line import/no-unassigned-import -- it checks, and exports nothing
import './require-node.mjs';

process.env['UV_THREADPOOL_SIZE'] = String(Math.max(8, Number(process.env['UV_THREADPOOL_SIZE']) || 0));
const { runCommand } = await import('./commands.ts');
process.exitCode = await runCommand(process.argv.slice(2));
