/** One connection to a database server: what the pool and the driver know of mysql2 and pg. */

export type Row = Readonly<Record<string, unknown>>;

export type Answer = { readonly rows: readonly Row[]; readonly affectedRows: number };

export type Wire = {
  /** False once the connection is lost, or in doubt: it must not be used again. */
  readonly isUsable: boolean;
  /**
   * Runs one statement. Every error is a BackupError; one that may be retried has `details.outcome` (see transaction.ts):
   * `undone` if the server said no, `unknown` if it said nothing.
   */
  run(text: string, values: readonly unknown[]): Promise<Answer>;
  /** Says goodbye to the server if it is there. */
  close(): Promise<void>;
};

/** Opens a connection, logs in, and prepares the session. Errors as those of `run`. */
export type OpenWire = () => Promise<Wire>;

/** A value as both servers take it: times as UTC text, with the digits of the second that the server's columns keep. */
export function toServerValue(value: unknown, fractionDigits: 0 | 3): unknown {
  if (value === undefined) return null;
  if (!(value instanceof Date)) return value;
  const text = value.toISOString().replace('T', ' ');
  return fractionDigits === 0 ? text.slice(0, 19) : text.slice(0, 23);
}
