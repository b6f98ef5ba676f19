import { randomUUID } from 'node:crypto';

/** Python's `uuid.uuid4().hex`: 32 hexadecimal digits. */
export function uniqueId(): string {
  return randomUUID().replaceAll('-', '');
}
