/**
 * Logging: pino, with secrets redacted whatever object they hang on. Lines that are written for a request carry its id,
 * in whichever room they are written: `withLogFields` gives the fields to all that its work awaits.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { destination, pino, type DestinationStream, type Logger as PinoLogger } from 'pino';

export type Logger = PinoLogger;

/** Field names whose values never reach a log, at the top and one or two levels below it. */
export const secretFields = [
  'password',
  'token',
  'authorization',
  'auth_token',
  'authToken',
  'secret',
  'secretKey',
  'accessKey',
  'transport_url',
  'connection',
] as const;

export type LogFields = Readonly<Record<string, string>>;

const requestFields = new AsyncLocalStorage<LogFields>();

/** Does `work`; every line logged by it, and by what it starts, carries `fields`. */
export function withLogFields<T>(fields: LogFields, work: () => T): T {
  return requestFields.run(fields, work);
}

export type LogOptions = {
  readonly level: string;
  /** Where lines go: standard output unless given. */
  readonly destination?: DestinationStream;
};

export function createLogger(options: LogOptions): Logger {
  const paths = secretFields.flatMap((field) => [field, `*.${field}`, `*.*.${field}`, `*["${field}"]`]);
  const settings = {
    level: options.level,
    base: null,
    mixin: () => ({ ...requestFields.getStore() }),
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: [...new Set(paths)], censor: '[secret]' },
  };
  return options.destination === undefined ? pino(settings) : pino(settings, options.destination);
}

/**
 * Lines into a file, which is made with its directory; after SIGHUP into a new one, for those who rotate logs. Each line is
 * written when it is logged, as on standard output: the last ones before a crash are those that are needed.
 */
export function openLogDestination(path: string): DestinationStream {
  const file = destination({ dest: path, mkdir: true, append: true, sync: true });
  process.on('SIGHUP', () => file.reopen());
  return file;
}
