/** A secret's description, as `GET /v1/secrets/<id>` gives it. */
import { z } from 'zod';
import { strangeAnswer } from './barbican-error.ts';

export type Secret = {
  /** What the payload is to be asked for as, and stored again as. */
  readonly contentType: string;
  /** What a copy has of the original: what castellan's objects carry, and the mode. Not the expiry: a backup outlives it. */
  readonly kept: Readonly<Record<string, string | number>>;
};

const secretSchema = z.looseObject({
  name: z.string().nullish(),
  algorithm: z.string().nullish(),
  bit_length: z.number().int().nullish(),
  mode: z.string().nullish(),
  secret_type: z.string().nullish(),
  content_types: z.record(z.string(), z.string()).nullish(),
});

/** Throws `store-denied` for what is no description, and for a secret without a payload. */
export function parseSecret(text: string, what: string): Secret {
  let described: unknown;
  try {
    described = JSON.parse(text);
  } catch (error) {
    throw strangeAnswer(what, 'it is not JSON', error);
  }
  const parsed = secretSchema.safeParse(described);
  if (!parsed.success) throw strangeAnswer(what, 'it does not describe a secret', parsed.error);
  const { content_types: types, name, algorithm, bit_length, mode, secret_type } = parsed.data;
  const contentType = types?.['default'];
  if (contentType === undefined) throw strangeAnswer(what, 'the secret has no payload');
  const kept = Object.entries({ name, algorithm, bit_length, mode, secret_type }).flatMap(([key, value]) =>
    value === null || value === undefined ? [] : [[key, value] as const],
  );
  return { contentType, kept: Object.fromEntries(kept) };
}
