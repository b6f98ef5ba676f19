/** Parameters that many routes share, in the forms that Cinder accepts (cinder/api/validation/parameter_types.py). */
import { z } from 'zod';

export const uuid = z
  .string()
  .regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/, 'must be a lower-case UUID');

export const projectParams = z.object({
  project_id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'must be 1 to 64 letters, digits, "-" and "_"'),
});
export const itemParams = projectParams.extend({ id: uuid });

const printable = /^[^\p{Cc}\p{Cs}]*$/u;
/** An optional name or description; null and absent are the same. */
export const text = z
  .string()
  .max(255)
  .regex(printable, 'must not hold control characters')
  .nullish()
  .transform((value) => value ?? null);

const yes = ['true', '1', 'on', 'yes', 'y', 't'];
const no = ['false', '0', 'off', 'no', 'n', 'f'];
/** A boolean, or one of the words that Cinder takes for one. */
export const flag = z
  .union([
    z.boolean(),
    z.enum([
      ...yes,
      ...no,
      'True',
      'TRUE',
      'False',
      'FALSE',
      'ON',
      'On',
      'OFF',
      'Off',
      'YES',
      'Yes',
      'NO',
      'No',
    ]),
  ])
  .default(false)
  .transform((value) => (typeof value === 'boolean' ? value : yes.includes(value.toLowerCase())));

export const metadata = z
  .record(z.string().regex(/^[a-zA-Z0-9-_:. ]{1,255}$/), z.string().max(255))
  .nullish()
  .transform((value) => value ?? {});

export const optionalUuid = uuid.nullish().transform((value) => value ?? null);

const count = z.coerce.number().int().min(0);
export const pageQuery = z.object({
  limit: count.max(1000).default(1000),
  offset: count.max(Number.MAX_SAFE_INTEGER).default(0),
  marker: uuid.optional(),
});

export const link = z.object({ rel: z.string(), href: z.string() });

/** The one shape of an error (cinder/api/openstack/wsgi.py, Fault): the key says which. */
export const fault = z
  .record(z.string(), z.object({ code: z.number().int(), message: z.string() }))
  .meta({ id: 'Fault' });

export const faults = {
  '4xx': fault.describe('the request cannot be done as it stands'),
  '5xx': fault.describe('the service, its store or its storage failed'),
} as const;
