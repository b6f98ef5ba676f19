/** What the service says of its work, over REST. */
import { z } from 'zod';
import { addressesOf, type StageSettings } from './settings.ts';

const operationSchema = z.object({
  verb: z.string(),
  backup_id: z.string().nullable(),
  state: z.string(),
  mode: z.string().nullable(),
  progress: z.object({
    planned_bytes: z.number().nullable(),
    read_bytes: z.number(),
    done_bytes: z.number(),
  }),
});

export type StageOperation = z.infer<typeof operationSchema>;

/** Newest first. Empty while the service does not answer. */
export async function operationsOf(settings: StageSettings): Promise<readonly StageOperation[]> {
  const answer = await fetch(`${addressesOf(settings).rest}/v1/operations`).catch(() => undefined);
  if (answer?.ok !== true) return [];
  return z.object({ operations: z.array(operationSchema) }).parse(await answer.json()).operations;
}
