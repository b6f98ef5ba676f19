/** Logging: pino, with secrets redacted whatever object they hang on. */
import { pino, type DestinationStream, type Logger as PinoLogger } from 'pino';

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
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: [...new Set(paths)], censor: '[secret]' },
  };
  return options.destination === undefined ? pino(settings) : pino(settings, options.destination);
}
