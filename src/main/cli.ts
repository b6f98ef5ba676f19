#!/usr/bin/env node
/**
 * The entry of the program. Before anything is loaded: the right Node (an older one comes silently where optional
 * packages are left out), room in libuv's pool, which is sized when it is first used, and V8's flags.
 *
 * The collector: each read of a socket leaves a buffer of 64 KiB behind. V8 frees those with each collection of the young generation,
 * which therefore stays at its 1 MiB; between two of them they make the heap look half as large again, for which V8 by itself
 * collects everything, every 14 MiB of a stream. It does so now when the heap is three times as large (a full backup of 1 GiB:
 * 3 such collections instead of 24, and an eighth less processor time). So small a generation is collected faster by one thread than
 * by several; and one thread marks the old one beside the work, since several took from two processors what sealing needs.
 *
 * The compilers: work comes in bursts. A first increment of half a second spent a tenth of its processor time on making Maglev's code,
 * which hardly ran before it was over; the other compilers do.
 */
import { setFlagsFromString } from 'node:v8';
// oxlint-disable-next-line import/no-unassigned-import -- it checks, and exports nothing
import './require-node.mjs';

setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--no-parallel-scavenge');
setFlagsFromString('--concurrent-marking-max-worker-num=1');
setFlagsFromString('--heap-growing-percent=200');
setFlagsFromString('--no-maglev');
process.env['UV_THREADPOOL_SIZE'] = String(Math.max(8, Number(process.env['UV_THREADPOOL_SIZE']) || 0));
const { runCommand } = await import('./commands.ts');
process.exitCode = await runCommand(process.argv.slice(2));
