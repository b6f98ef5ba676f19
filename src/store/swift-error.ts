/** Statuses of Swift as our errors. */
import { BackupError, type ErrorCode } from '../model/errors.ts';
import type { HttpResponse } from '../openstack/http.ts';
import { retryAfterDetails } from './retry-call.ts';

export type SwiftTarget = {
  readonly method: string;
  /** Beside the accounts, in place of a container. */
  readonly path?: string;
  readonly container?: string | undefined;
  readonly key?: string | undefined;
};

/** Reads the rest of an answer that was not expected, and says what it means. */
export async function swiftError(target: SwiftTarget, answer: HttpResponse): Promise<BackupError> {
  const text = (await answer.text(4096).catch(() => '')).replaceAll(/<[^>]*>|\s+/g, ' ').trim();
  return translateSwiftStatus(target, answer.status, text, answer.header('retry-after'));
}

/** `text` is what Swift said besides the status; `retryAfter` the header of that name. */
export function translateSwiftStatus(
  target: SwiftTarget,
  status: number,
  text: string,
  retryAfter: string | null = null,
): BackupError {
  const what = describe(target);
  const details = {
    status,
    answer: text.slice(0, 300),
    ...retryAfterDetails(retryAfter),
  };
  const make = (code: ErrorCode, sentence: string) => new BackupError(code, sentence, { details });

  if (status === 401) {
    return make(
      'store-denied',
      `Swift refuses the token for ${what} (401): it is wrong or has expired; set backup_swift_service_auth and [service_user] so that a backup outlives its user's token, or use backup_swift_auth = single_user`,
    );
  }
  if (status === 403) {
    return make(
      'store-denied',
      `Swift forbids ${target.method} of ${what} (403): the user needs an operator role of Swift in that project, and the container must let it write`,
    );
  }
  if (status === 404) {
    return target.method === 'GET' || target.method === 'HEAD'
      ? make('object-missing', `${what} is absent from Swift`)
      : make('object-missing', `${describe({ ...target, key: undefined })} is absent from Swift`);
  }
  if (status === 507 || (status === 413 && /quota/i.test(text))) {
    return make(
      'store-full',
      `Swift has no room for ${what} (${status}): raise the quota of the account or container, or delete backups`,
    );
  }
  if (status === 413) {
    return make(
      'limit-exceeded',
      `${what} is too large for this Swift (413): lower backup_swift_object_size below its max_file_size`,
    );
  }
  if (status === 422) {
    return make(
      'store-unavailable',
      `the bytes of ${what} were changed on their way to Swift (422); it kept nothing`,
    );
  }
  // 202 to a put: it keeps the object as somebody wrote it later, by its own clock.
  const isOvertaken = status === 409 || (status === 202 && target.method === 'PUT');
  if (isOvertaken || status >= 500 || [408, 425, 429, 498, 499].includes(status)) {
    const why =
      status === 429 || status === 498
        ? 'it asks to slow down'
        : isOvertaken
          ? 'somebody else is writing it'
          : 'it is overloaded or broken';
    return make('store-unavailable', `Swift could not ${target.method} ${what} (${status}): ${why}`);
  }
  if (status >= 300 && status < 400) {
    return make(
      'store-denied',
      `Swift answers ${target.method} of ${what} with a redirection (${status}): backup_swift_url or the catalog names another server`,
    );
  }
  return make('store-denied', `Swift refuses ${target.method} of ${what} (${status}): ${text.slice(0, 200)}`);
}

function describe(target: SwiftTarget): string {
  if (target.container === undefined) return target.path ?? 'the account';
  if (target.key === undefined) return `container ${target.container}`;
  return `object ${target.key} in container ${target.container}`;
}
