import { expect, test } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { attempt, posixError } from '../../src/store/posix-error.ts';

const system = (code: string) => Object.assign(new Error(`${code}: said the kernel`), { code });

const table: readonly [string, string, boolean][] = [
  ['ENOSPC', 'store-full', false],
  ['EDQUOT', 'store-full', false],
  ['EACCES', 'store-denied', false],
  ['EPERM', 'store-denied', false],
  ['EROFS', 'store-denied', false],
  ['ENOENT', 'object-missing', false],
  ['ENOTDIR', 'message-invalid', false],
  ['EISDIR', 'message-invalid', false],
  ['ELOOP', 'message-invalid', false],
  ['ENAMETOOLONG', 'message-invalid', false],
  ['EIO', 'store-unavailable', true],
  ['ESTALE', 'store-unavailable', true],
  ['ETIMEDOUT', 'store-unavailable', true],
  ['EMFILE', 'store-unavailable', true],
];
for (const [code, wanted, retryable] of table) {
  test(`${code} is ${wanted}${retryable ? ' and may be tried again' : ''}`, () => {
    const cause = system(code);
    const error = posixError('write /backups/x', cause);
    expect(error).toMatchObject({ code: wanted, retryable, cause });
    expect(error.message).toMatch(new RegExp(`^cannot write /backups/x: ${code}; .{20}`));
  });
}

test('an error of ours passes as it is', async () => {
  const ours = new BackupError('corrupt', 'no');
  await expect(attempt('read', Promise.reject(ours))).rejects.toBe(ours);
});
