/** What Barbican's answers mean, in words that name the key and the remedy. */
import { BackupError } from '../model/errors.ts';

/** The error of an answer with a status that is no success; `what` names what was asked for. */
export function barbicanFailure(what: string, status: number, text: string): BackupError {
  const details = { status };
  const said = /"description"\s*:\s*"([^"]{1,300})"/u.exec(text)?.[1] ?? '';
  const quoted = said === '' ? '' : `: ${said}`;
  if (status === 404) {
    return new BackupError('not-found', `${what} is not in Barbican${quoted}`, { details });
  }
  if (status === 401) {
    return new BackupError(
      'store-denied',
      `Barbican does not take the token for ${what} (401): it has expired, or Barbican and Cinder use different Keystones`,
      { details },
    );
  }
  if (status === 403) {
    return new BackupError(
      'store-denied',
      `Barbican forbids access to ${what} (403)${quoted}: the user needs a role in the project of the key (creator, member), or an ACL on it`,
      { details },
    );
  }
  if (status >= 500 || status === 429 || status === 408) {
    return new BackupError('store-unavailable', `Barbican cannot serve ${what} now (${status})${quoted}`, {
      details,
    });
  }
  return new BackupError('store-denied', `Barbican refuses ${what} (${status})${quoted}`, { details });
}

/** An answer that makes no sense. */
export function strangeAnswer(what: string, why: string, cause?: unknown): BackupError {
  return new BackupError(
    'store-denied',
    `what Barbican answers for ${what} is not understood: ${why}; see whether [barbican] barbican_endpoint is right`,
    { cause },
  );
}
