#!/usr/bin/env node
/**
 * The entry of the program. Before anything is loaded: the right Node (an older one comes silently where optional
 * packages are left out), room in libuv's pool, which is sized when it is first used, and a young generation that stays at its
 * 1 MiB. A stream leaves behind a buffer of 64 KiB for each read of its socket; V8 frees those with each collection of the young
 * generation, and if that is rare it collects everything instead: a full backup of 1 GiB took 96 such collections, now 24, and a
 * quarter less processor time. So small a generation is collected faster by one thread than by several; and one thread marks the
 * old one beside the work, since several took from two processors what sealing needs (2.6 s of 14 for 1 GiB, now 1).
 */
import { setFlagsFromString } from 'node:v8';
// oxlint-disable-next-line import/no-unassigned-import -- it checks, and exports nothing
import './require-node.mjs';

setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--no-parallel-scavenge');
setFlagsFromString('--concurrent-marking-max-worker-num=1');
process.env['UV_THREADPOOL_SIZE'] = String(Math.max(8, Number(process.env['UV_THREADPOOL_SIZE']) || 0));
const { runCommand } = await import('./commands.ts');
process.exitCode = await runCommand(process.argv.slice(2));
