/** Removes the stage of the given directory when its standard input ends: when the tests that started it are over, or killed. */
import { once } from 'node:events';
import { removeStage } from './stage.ts';

const [directory] = process.argv.slice(2);
if (directory === undefined) throw new Error('watchdog.ts DIRECTORY');
process.stdin.resume();
await once(process.stdin, 'close');
await removeStage(directory);
