/** Values of columns in every form that a driver returns them. */
import { BackupError } from '../model/errors.ts';

/** A DATETIME: a Date, or a UTC text `YYYY-MM-DD HH:MM:SS[.fraction]`. */
export function readTime(value: Date | string | null): Date | null {
  if (value === null || value instanceof Date) return value;
  const time = new Date(`${value.replace(' ', 'T')}Z`);
  if (Number.isNaN(time.getTime())) {
    throw new BackupError('corrupt', `a row holds ${JSON.stringify(value)} where a time belongs`);
  }
  return time;
}

/** A DATETIME that Cinder always sets; the epoch where a row written by hand lacks it. */
export function readSetTime(value: Date | string | null): Date {
  return readTime(value) ?? new Date(0);
}

/** A BOOLEAN: true, 1, or their opposites; NULL is false. */
export function readFlag(value: boolean | number | null): boolean {
  return value === true || value === 1;
}

/** A count() or sum(): a number or its digits; NULL, the sum of nothing, is 0. */
export function readCount(value: number | string | bigint | null): number {
  return Number(value ?? 0);
}

/**
 * At most `length` characters of `text`, for a VARCHAR(length). Characters beyond U+FFFF become U+FFFD: the columns of most
 * clouds are utf8mb3, and a strict server refuses the whole row for one of them.
 */
export function cutText(text: string, length: number): string {
  return text.replaceAll(/[\u{10000}-\u{10FFFF}]/gu, '\uFFFD').slice(0, length);
}
